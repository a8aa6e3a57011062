use hmac::{Hmac, Mac};
use http::request::Parts;
use sha2::Sha256;

use crate::store::Owner;

/// Says on whose behalf a request comes.
///
/// `None` is nobody, not everybody: an operation that was accepted for nobody
/// is there for nobody's requests alone.
///
/// [`HmacOwner`] and [`PlainOwner`] make one of a closure; which of them it is
/// to be has to be said wherever the store may be read by others. A
/// [`MemoryStore`](crate::MemoryStore) is not, and takes the closure itself.
///
/// Take the owner from what an outer layer has verified (an extension, say),
/// and from a bare header only where a gateway sets it.
pub trait ExtractOwner: Send + Sync + 'static {
    /// The owner of the operation that this request becomes.
    fn owner(&self, parts: &Parts) -> Option<Owner>;

    /// Whether an operation of `owner` is there for this request.
    fn owns(&self, parts: &Parts, owner: Option<&Owner>) -> bool {
        self.owner(parts).as_ref() == owner
    }
}

/// Keeps owners as the application names them. Whoever can read the store can
/// read who they are.
///
/// ```
/// use http::request::Parts;
/// use tower_operations::{accept::PlainOwner, store::Owner};
///
/// #[derive(Clone)]
/// struct Tenant(u32); // put into the extensions by your authentication
///
/// let owner = PlainOwner::new(|parts: &Parts| {
///     parts.extensions.get().map(|Tenant(number)| Owner::new(number.to_string()))
/// });
/// ```
#[derive(Clone, Copy)]
pub struct PlainOwner<F>(F);

impl<F: Fn(&Parts) -> Option<Owner>> PlainOwner<F> {
    /// Keeps what `owner` says as it is.
    #[must_use]
    pub fn new(owner: F) -> Self {
        Self(owner)
    }
}

impl<F: Fn(&Parts) -> Option<Owner> + Send + Sync + 'static> ExtractOwner for PlainOwner<F> {
    fn owner(&self, parts: &Parts) -> Option<Owner> {
        self.0(parts)
    }
}

/// Keeps owners as HMAC-SHA-256 (RFC 2104) under a key of the application's, so
/// that a store that is read by others does not say who they are.
///
/// Several keys let one be replaced: operations are created under the first,
/// and are there for their owner under any of them. A list and an idempotency
/// key only find what was created under the first.
///
/// ```
/// use http::request::Parts;
/// use tower_operations::{
///     AsyncAcceptLayer, MemoryStore, PollService, accept::HmacOwner, store::Owner,
/// };
///
/// #[derive(Clone)]
/// struct User(String); // put into the extensions by your authentication
///
/// let owner = || {
///     HmacOwner::new(
///         |parts: &Parts| parts.extensions.get().map(|User(name)| Owner::new(name.as_str())),
///         [&b"the key of this month"[..], b"the key of last month"],
///     )
/// };
/// let store = MemoryStore::new();
/// let layer = AsyncAcceptLayer::new(store.clone()).owner_with(owner());
/// let polls = PollService::new(store).owner_with(owner());
/// ```
#[derive(Clone)]
pub struct HmacOwner<F> {
    owner: F,
    /// The first one is the one to create with.
    keys: Vec<Hmac<Sha256>>,
}

/// What stands before the digest: another function would have another name.
const SCHEME: &str = "hmac-sha256:";

impl<F: Fn(&Parts) -> Option<Owner>> HmacOwner<F> {
    /// Keys what `owner` says, with the first of `keys`.
    ///
    /// # Panics
    /// If there is no key.
    #[must_use]
    pub fn new<K: AsRef<[u8]>>(owner: F, keys: impl IntoIterator<Item = K>) -> Self {
        let keyed = |key: K| Hmac::new_from_slice(key.as_ref()).expect("HMAC takes any key");
        let keys: Vec<_> = keys.into_iter().map(keyed).collect();
        assert!(!keys.is_empty(), "a keyed owner needs a key");
        Self { owner, keys }
    }

    fn digest(&self, owner: &Owner) -> Owner {
        let mac = self.keys[0].clone().chain_update(owner.as_str());
        let mut text = String::from(SCHEME);
        for byte in mac.finalize().into_bytes() {
            text.push_str(&format!("{byte:02x}"));
        }
        Owner::new(text)
    }
}

impl<F: Fn(&Parts) -> Option<Owner> + Send + Sync + 'static> ExtractOwner for HmacOwner<F> {
    fn owner(&self, parts: &Parts) -> Option<Owner> {
        (self.owner)(parts).map(|owner| self.digest(&owner))
    }

    fn owns(&self, parts: &Parts, owner: Option<&Owner>) -> bool {
        match ((self.owner)(parts), owner) {
            (None, None) => true,
            (Some(asks), Some(kept)) => {
                let Some(kept) = digest_of(kept) else {
                    return false;
                };
                self.keys.iter().any(|key| {
                    // In constant time.
                    key.clone()
                        .chain_update(asks.as_str())
                        .verify_slice(&kept)
                        .is_ok()
                })
            }
            (None, Some(_)) | (Some(_), None) => false,
        }
    }
}

fn digest_of(owner: &Owner) -> Option<Vec<u8>> {
    let hex = owner.as_str().strip_prefix(SCHEME)?.as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    hex.chunks(2)
        .map(|pair| Some((digit(*pair.first()?)? * 16 + digit(*pair.get(1)?)?) as u8))
        .collect()
}

impl<F> std::fmt::Debug for PlainOwner<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PlainOwner").finish_non_exhaustive()
    }
}

impl<F> std::fmt::Debug for HmacOwner<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HmacOwner")
            .field("keys", &self.keys.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn keyed(keys: &[&str]) -> HmacOwner<impl Fn(&Parts) -> Option<Owner> + Send + Sync + 'static> {
        HmacOwner::new(
            |parts: &Parts| {
                parts
                    .headers
                    .get("x-user")
                    .map(|user| Owner::new(user.to_str().unwrap()))
            },
            keys.to_vec(),
        )
    }

    fn parts(user: Option<&str>) -> Parts {
        let mut request = Request::builder();
        if let Some(user) = user {
            request = request.header("x-user", user);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn the_digest_is_that_of_rfc_4231() {
        // Test case 2 of RFC 4231, section 4.3.
        let owner = keyed(&["Jefe"]).owner(&parts(Some("what do ya want for nothing?")));
        assert_eq!(
            owner.unwrap().as_str(),
            "hmac-sha256:5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn an_owner_is_known_under_every_key_and_created_under_the_first() {
        let (old, new) = (keyed(&["old"]), keyed(&["new", "old"]));
        let (ada, bob) = (parts(Some("ada")), parts(Some("bob")));
        let kept = old.owner(&ada);
        assert_ne!(new.owner(&ada), kept);
        assert!(new.owns(&ada, kept.as_ref()));
        assert!(!new.owns(&bob, kept.as_ref()));
        assert!(!keyed(&["new"]).owns(&ada, kept.as_ref()));
        assert!(!old.owns(&ada, new.owner(&ada).as_ref()));
        assert!(!new.owns(&ada, Some(&Owner::new("ada"))));
        assert!(!new.owns(&ada, Some(&Owner::new("hmac-sha256:5b5"))));
    }

    #[test]
    fn nobody_is_somebody_to_nobody() {
        let keyed = keyed(&["key"]);
        let (ada, nobody) = (parts(Some("ada")), parts(None));
        assert!(keyed.owns(&nobody, None));
        assert!(!keyed.owns(&ada, None));
        assert!(!keyed.owns(&nobody, keyed.owner(&ada).as_ref()));
    }
}
