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
        let [first, second] = [(); 2].map(|()| run(&plan(7, world)));
        assert_eq!(first.log.digest, second.log.digest, "{world:?}");
        assert_eq!(first.results, second.results, "{world:?}");
        assert_ne!(
            first.log.digest,
            run(&plan(8, world)).log.digest,
            "{world:?}"
        );
    }
}

#[test]
fn no_law_is_broken() {
    for world in WORLDS {
        let (mut reruns, mut canceled, mut killed) = (0, 0, 0);
        for seed in 0..5 {
            let outcome = run(&plan(seed, world));
            assert_good(seed, &outcome);
            let counts = outcome.counts;
            assert!(counts.accepted >= 250 && counts.kills == 6, "{counts:?}");
            (reruns, canceled) = (reruns + counts.reruns, canceled + counts.canceled);
            let results = outcome.results;
            assert!(results.finished > 50 && results.deleted > 0, "{results:?}");
            killed += results.killed_unrecorded + results.killed_halfway;
        }
        assert!(reruns > 0 && canceled > 0 && killed > 0, "{world:?}");
    }
}
