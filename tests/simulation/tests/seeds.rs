//! Worlds of some seeds.

use simulation::{Outcome, Plan, StoreKind, run};

fn plan(seed: u64, store: StoreKind) -> Plan {
    Plan::new(seed, store, 300, 6)
}

fn assert_good(seed: u64, outcome: &Outcome) {
    let violations = &outcome.violations;
    assert!(violations.is_empty(), "seed {seed}: {violations:#?}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for store in [StoreKind::Engine, StoreKind::Memory] {
        let digests = [(); 2].map(|()| run(&plan(7, store)).log.digest);
        assert_eq!(digests[0], digests[1], "{store:?}");
        assert_ne!(digests[0], run(&plan(8, store)).log.digest, "{store:?}");
    }
}

#[test]
fn no_law_is_broken() {
    for store in [StoreKind::Engine, StoreKind::Memory] {
        for seed in 0..5 {
            let outcome = run(&plan(seed, store));
            assert_good(seed, &outcome);
            let counts = outcome.counts;
            assert!(counts.accepted >= 250 && counts.kills == 6, "{counts:?}");
            assert!(counts.reruns > 0 && counts.canceled > 0, "{counts:?}");
        }
    }
}
