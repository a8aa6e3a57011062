//! The owner of a request.

use hmac::{Hmac, KeyInit, Mac};
use http::request::Parts;
use sha2::Sha256;

use crate::store::Owner;

/// Extracts the owner of a request.
///
/// `None` means no owner, not every owner: only requests without an owner see an operation
/// without an owner.
///
/// A closure implements this trait, and keeps owners in the store in plain text: everybody who
/// can read the store can read them. A [`HmacOwner`] keeps owners as keyed hashes.
///
/// Extract the owner from data that an outer layer has verified, for example an extension. Use a
/// bare header only where a gateway sets it.
pub trait ExtractOwner: Send + Sync + 'static {
    /// Returns the owner of the operation that this request becomes.
    fn owner(&self, parts: &Parts) -> Option<Owner>;

    /// Returns whether this request may see an operation of `owner`.
    fn owns(&self, parts: &Parts, owner: Option<&Owner>) -> bool {
        self.owner(parts).as_ref() == owner
    }
}

impl<F: Fn(&Parts) -> Option<Owner> + Send + Sync + 'static> ExtractOwner for F {
    fn owner(&self, parts: &Parts) -> Option<Owner> {
        self(parts)
    }
}

/// An extractor that keeps owners as HMAC-SHA-256 (RFC 2104) under a key of the application, so
/// that a store that others can read does not reveal the owners.
///
/// ```
/// use http::request::Parts;
/// use tower_operations::{HmacOwner, MemoryStore, Operations, Owner};
///
/// #[derive(Clone)]
/// struct User(String); // put into the extensions by your authentication
///
/// let owner = HmacOwner::new("the key of this month", |parts: &Parts| {
///     parts.extensions.get().map(|User(name)| Owner::new(name.as_str()))
/// });
/// let operations = Operations::new(MemoryStore::new())
///     .owner(owner.previous_key("the key of last month"));
/// ```
#[derive(Clone)]
pub struct HmacOwner<F> {
    owner: F,
    /// The keys; new operations are created with the first one.
    keys: Vec<Hmac<Sha256>>,
}

/// The prefix of the digest, which names the hash function.
const SCHEME: &str = "hmac-sha256:";

impl<F: Fn(&Parts) -> Option<Owner>> HmacOwner<F> {
    /// Creates an extractor that keeps the owners that `owner` returns, hashed with `key`. The
    /// key may have any length.
    #[must_use]
    pub fn new(key: impl AsRef<[u8]>, owner: F) -> Self {
        let keys = vec![hmac(key)];
        Self { owner, keys }
    }

    /// Adds an earlier key. Operations that were created under that key are found by their ids.
    /// A list and an idempotency key find only operations that were created under the present
    /// key.
    #[must_use]
    pub fn previous_key(mut self, key: impl AsRef<[u8]>) -> Self {
        self.keys.push(hmac(key));
        self
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
                    // The digests are compared in constant time.
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

fn hmac(key: impl AsRef<[u8]>) -> Hmac<Sha256> {
    Hmac::new_from_slice(key.as_ref()).expect("HMAC takes a key of any length")
}

fn digest_of(owner: &Owner) -> Option<Vec<u8>> {
    let hex = owner.as_str().strip_prefix(SCHEME)?.as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    hex.chunks(2)
        .map(|pair| Some((digit(*pair.first()?)? * 16 + digit(*pair.get(1)?)?) as u8))
        .collect()
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
        let by_header = |parts: &Parts| {
            let user = parts.headers.get("x-user")?;
            Some(Owner::new(user.to_str().unwrap()))
        };
        let first = HmacOwner::new(keys[0], by_header);
        keys[1..].iter().fold(first, HmacOwner::previous_key)
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
    fn owners_are_recognized_under_every_key_and_created_under_the_first() {
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
    fn requests_without_an_owner_see_only_operations_without_an_owner() {
        let keyed = keyed(&["key"]);
        let (ada, nobody) = (parts(Some("ada")), parts(None));
        assert!(keyed.owns(&nobody, None));
        assert!(!keyed.owns(&ada, None));
        assert!(!keyed.owns(&nobody, keyed.owner(&ada).as_ref()));
    }
}
