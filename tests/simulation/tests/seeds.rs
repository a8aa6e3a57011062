//! Worlds of some seeds.

use simulation::{Outcome, Plan, StoreKind, run};

/// The stores, and the number of workers with each.
const WORLDS: [(StoreKind, usize); 4] = [
    (StoreKind::Engine, 0),
    (StoreKind::Engine, 2),
    (StoreKind::Memory, 0),
    (StoreKind::Redb, 0),
];

fn plan(seed: u64, (store, workers): (StoreKind, usize)) -> Plan {
    Plan {
        workers,
        ..Plan::new(seed, store, 300, 6)
    }
}

fn assert_good(seed: u64, outcome: &Outcome) {
    let violations = &outcome.violations;
    assert!(violations.is_empty(), "seed {seed}: {violations:#?}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for world in WORLDS {
        let digests = [(); 2].map(|()| run(&plan(7, world)).log.digest);
        assert_eq!(digests[0], digests[1], "{world:?}");
        assert_ne!(digests[0], run(&plan(8, world)).log.digest, "{world:?}");
    }
}

#[test]
fn no_law_is_broken() {
    for world in WORLDS {
        let (mut reruns, mut canceled) = (0, 0);
        for seed in 0..5 {
            let outcome = run(&plan(seed, world));
            assert_good(seed, &outcome);
            let counts = outcome.counts;
            assert!(counts.accepted >= 250 && counts.kills == 6, "{counts:?}");
            (reruns, canceled) = (reruns + counts.reruns, canceled + counts.canceled);
        }
        assert!(reruns > 0 && canceled > 0, "{world:?}");
    }
}
