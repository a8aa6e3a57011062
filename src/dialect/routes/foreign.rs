//! Parameters of other dialects, which are refused by name.

use crate::dialect::{
    ApiError, RequestView,
    url::query::{self},
};

/// The names that dialects use for a filter by state, for the length of a page, and for its
/// beginning.
const OF_LISTS: [&[&str]; 3] = [
    &["state", "status", "runtimeStatus", "filter", "$filter"],
    &[
        "limit",
        "top",
        "$top",
        "pageSize",
        "page_size",
        "itemsPerPage",
        "maxpagesize",
    ],
    &[
        "cursor",
        "pageToken",
        "page_token",
        "offset",
        "pageNum",
        "skip",
        "$skip",
        "$skiptoken",
    ],
];

/// The names of filters that dialects define and this crate does not support.
const FILTERS: [&str; 11] = [
    "type",
    "processID",
    "datetime",
    "minDuration",
    "maxDuration",
    "createdTimeFrom",
    "createdTimeTo",
    "instanceIdPrefix",
    "includeCount",
    "orderBy",
    "$orderby",
];

/// Refuses list parameters of other dialects: ignoring a filter or the beginning of a page
/// would return wrong operations. `names` are the names in this dialect, empty for none.
/// `also` are the further parameters that the dialect accepts or refuses itself.
pub(in crate::dialect) fn refuse_foreign(
    request: &RequestView<'_>,
    names: [&'static str; 3],
    also: &[&str],
) -> Result<(), ApiError> {
    let sent = query::names(request.query).filter(|sent| {
        let sent = &**sent;
        !names.contains(&sent) && !also.contains(&sent)
    });
    for sent in sent {
        let of = |words: &[&'static str]| words.iter().copied().find(|word| *word == &*sent);
        for (name, words) in names.into_iter().zip(OF_LISTS) {
            match (of(words), name) {
                (Some(parameter), "") => return Err(ApiError::UnsupportedParameter { parameter }),
                (Some(parameter), name) => {
                    return Err(ApiError::ForeignParameter { parameter, name });
                }
                (None, _) => {}
            }
        }
        if let Some(parameter) = of(&FILTERS) {
            return Err(ApiError::UnsupportedParameter { parameter });
        }
    }
    Ok(())
}
