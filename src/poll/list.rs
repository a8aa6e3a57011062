//! Listing operations.

use http::{Response, request::Parts};

use super::{
    context::{context, unavailable},
    settings::Settings,
};
use crate::{
    dialect::{ApiError, ListPage, ListParams, Urls},
    operation::BufferedBody,
    store::{Cursor, ListQuery, Store, StoreError},
};

/// The default number of operations on a page, and the greatest.
const PAGE: usize = 20;
const LONGEST_PAGE: usize = 100;

/// The number of bytes of results after which a page ends.
const LARGEST_PAGE: usize = 1024 * 1024;

/// Lists the operations of the owner of the request, newest first.
pub(super) async fn list<S: Store>(
    settings: &Settings<S>,
    parts: &Parts,
    listing: ListParams,
) -> Response<BufferedBody> {
    try_list(settings, parts, listing)
        .await
        .unwrap_or_else(|fault| settings.fault(&fault))
}

async fn try_list<S: Store>(
    settings: &Settings<S>,
    parts: &Parts,
    listing: ListParams,
) -> Result<Response<BufferedBody>, ApiError> {
    let list = settings.powers.list.ok_or(ApiError::MissingId)?;
    let limit = listing.limit.unwrap_or(PAGE).min(LONGEST_PAGE);
    let max_body = match settings.shared.dialect.lists_results() {
        true => settings.inline_limit,
        false => 0,
    };
    let mut query = ListQuery::new(settings.shared.owner(parts), limit)
        .with_max_body(max_body)
        .with_max_bytes(LARGEST_PAGE);
    query.states = listing.states;
    query.after = listing
        .cursor
        .as_deref()
        .map(|cursor| Cursor(cursor.into()));
    let page = match (list(settings.store(), &query).await, &listing.cursor) {
        (Ok(page), _) => page,
        // The store does not know this cursor.
        (Err(StoreError::Refused(_)), Some(cursor)) => {
            let allowed = "what a page of this list gave for its next";
            let parameter = listing.cursor_parameter;
            return Err(ApiError::invalid_query(parameter, cursor, allowed));
        }
        (Err(error), _) => return Err(unavailable(settings, None, &error)),
    };
    let urls: Vec<Urls> = page
        .records
        .iter()
        .map(|record| settings.shared.locator.urls(parts, record.operation().id()))
        .collect();
    let operations: Vec<_> = page
        .records
        .iter()
        .zip(&urls)
        .map(|(record, urls)| {
            let context = context(settings, parts, record, urls);
            (record.operation().view(), context)
        })
        .collect();
    settings.shared.dialect.list(&ListPage {
        operations: &operations,
        next: page.next.as_ref().map(|cursor| &*cursor.0),
        params: &listing,
        limit,
    })
}
