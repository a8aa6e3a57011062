//! Random bytes of the operating system, fetched for many values at a time, and hashers.

use std::cell::RefCell;

use foldhash::quality::SeedableRandomState;

/// The number of random bytes that are fetched at once: enough for about twenty ids.
const BUFFER: usize = 256;

struct RandomBuffer {
    bytes: [u8; BUFFER],
    /// The number of bytes that are used up.
    used: usize,
}

thread_local! {
    static RANDOM: RefCell<RandomBuffer> = const {
        RefCell::new(RandomBuffer { bytes: [0; BUFFER], used: BUFFER })
    };
}

/// Returns bytes from the cryptographic random number generator of the operating system.
///
/// # Panics
/// Panics if the operating system has no randomness.
pub(crate) fn random_bytes<const N: usize>() -> [u8; N] {
    const { assert!(N <= BUFFER) };
    #[cfg(feature = "testing")]
    if let bytes = &mut [0; N]
        && super::replaced::fill_random(bytes)
    {
        return *bytes;
    }
    RANDOM.with_borrow_mut(|random| {
        if random.used + N > BUFFER {
            getrandom::fill(&mut random.bytes).expect("the operating system has randomness");
            random.used = 0;
        }
        let mut bytes = [0; N];
        let next = random.used + N;
        bytes.copy_from_slice(&random.bytes[random.used..next]);
        // The bytes are erased, so that they are in memory only once.
        random.bytes[random.used..next].fill(0);
        random.used = next;
        bytes
    })
}

/// Returns a hasher with a random seed of its own.
pub(crate) fn random_hasher() -> SeedableRandomState {
    #[cfg(feature = "testing")]
    if let seed = &mut [0; 8]
        && super::replaced::fill_random(seed)
    {
        let seed = u64::from_ne_bytes(*seed);
        return SeedableRandomState::with_seed(seed, foldhash::SharedSeed::global_fixed());
    }
    SeedableRandomState::random()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn drawn_bytes_are_never_repeated_and_never_zero() {
        let drawn: HashSet<[u8; 16]> = (0..1000).map(|_| random_bytes()).collect();
        assert_eq!(drawn.len(), 1000);
        assert!(!drawn.contains(&[0; 16]));
    }

    #[test]
    fn threads_draw_different_bytes() {
        let draw = || random_bytes::<16>();
        let others: Vec<_> = (0..4).map(|_| std::thread::spawn(draw)).collect();
        let drawn: HashSet<_> = others.into_iter().map(|it| it.join().unwrap()).collect();
        assert_eq!(drawn.len(), 4);
        assert!(!drawn.contains(&draw()));
    }
}
