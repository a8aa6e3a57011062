//! Law 9: a cursor continues its own list, and reveals nothing.

use tower_operations::{
    operation::{RecordedResponse, State},
    store::{Cursor, List, ListQuery, Repository},
};

use super::{create_some, law, list, new_owner};

pub(super) async fn check<R>(store: &R)
where
    R: Repository<Output = RecordedResponse> + List,
{
    a_cursor_that_was_made_up_is_refused(store).await;
    a_cursor_of_another_list_is_refused(store).await;
    cursors_do_not_tell_how_much_others_create(store).await;
}

/// Returns the cursor behind the first `limit` operations.
async fn cursor<R>(store: &R, query: &ListQuery) -> Cursor
where
    R: List<Output = RecordedResponse>,
{
    match list(store, query).await.next {
        Some(next) => next,
        None => panic!("listing: the first page is the only one"),
    }
}

/// Asserts that the refusal is final: a retry does not help.
async fn assert_refused<R>(store: &R, query: &ListQuery, what: &str)
where
    R: List<Output = RecordedResponse>,
{
    match store.list(query).await {
        Ok(page) => panic!("law 9: {what} is no cursor of {query:?}, but gave {page:?}"),
        Err(error) => {
            law!(
                9,
                !error.is_transient(),
                "{what} will never be a cursor of {query:?}: {error:?}"
            );
        }
    }
}

async fn a_cursor_that_was_made_up_is_refused<R>(store: &R)
where
    R: Repository<Output = RecordedResponse> + List,
{
    let owner = new_owner();
    create_some(store, owner.as_ref(), 2).await;
    let query = ListQuery::new(owner, 1);
    for text in ["", "\u{0}", "no cursor", "'; --", "0", "1", "2", "a", "ff"] {
        let query = query.clone().with_after(Cursor(text.into()));
        assert_refused(store, &query, &format!("{text:?}")).await;
    }
    let Cursor(real) = cursor(store, &query).await;
    let mut wrong = vec![
        format!("{real}0"),
        format!(" {real}"),
        real.chars().skip(1).collect(),
    ];
    for (at, was) in real.char_indices() {
        let next = if was == '1' { '2' } else { '1' };
        let mut changed = real.to_string();
        changed.replace_range(at..at + was.len_utf8(), &next.to_string());
        wrong.push(changed);
    }
    for text in wrong {
        let query = query.clone().with_after(Cursor(text.as_str().into()));
        assert_refused(store, &query, &format!("{text:?}, made of {real:?},")).await;
    }
}

async fn a_cursor_of_another_list_is_refused<R>(store: &R)
where
    R: Repository<Output = RecordedResponse> + List,
{
    let owners = [new_owner(), new_owner(), None];
    for owner in &owners {
        create_some(store, owner.as_ref(), 4).await;
    }
    let lists: Vec<ListQuery> = owners
        .into_iter()
        .flat_map(|owner| {
            let all = ListQuery::new(owner, 1);
            let pending = all.clone().with_state(State::Pending);
            let live = all.clone().with_states([State::Pending, State::Running]);
            [all, pending, live]
        })
        .collect();
    for (index, query) in lists.iter().enumerate() {
        let cursor = cursor(store, query).await;
        for (other, query) in lists.iter().enumerate() {
            // Pages of any length.
            let mut query = query.clone();
            (query.limit, query.after) = (2, Some(cursor.clone()));
            match index == other {
                true => assert_eq!(
                    list(store, &query).await.records.len(),
                    2,
                    "listing: a cursor goes on"
                ),
                false => assert_refused(store, &query, "that of another list").await,
            }
        }
    }
}

async fn cursors_do_not_tell_how_much_others_create<R>(store: &R)
where
    R: Repository<Output = RecordedResponse> + List,
{
    let mut cursors = Vec::new();
    for _ in 0..12 {
        let owner = new_owner();
        create_some(store, owner.as_ref(), 2).await;
        let Cursor(text) = cursor(store, &ListQuery::new(owner, 1)).await;
        cursors.push((text.len(), text));
    }
    let is_sorted = cursors.is_sorted() || cursors.iter().rev().is_sorted();
    assert!(
        !is_sorted,
        "listing: cursors behind one operation of each owner count those of all: {cursors:?}"
    );
}
