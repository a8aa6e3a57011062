//! Worlds of some seeds.

use simulation::{Outcome, Plan, StoreKind, run};

const STORES: [StoreKind; 3] = [StoreKind::Engine, StoreKind::Memory, StoreKind::Redb];

fn plan(seed: u64, store: StoreKind) -> Plan {
    Plan::new(seed, store, 300, 6)
}

fn assert_good(seed: u64, outcome: &Outcome) {
    let violations = &outcome.violations;
    assert!(violations.is_empty(), "seed {seed}: {violations:#?}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for store in STORES {
        let digests = [(); 2].map(|()| run(&plan(7, store)).log.digest);
        assert_eq!(digests[0], digests[1], "{store:?}");
        assert_ne!(digests[0], run(&plan(8, store)).log.digest, "{store:?}");
    }
}

#[test]
fn no_law_is_broken() {
    for store in STORES {
        for seed in 0..5 {
            let outcome = run(&plan(seed, store));
            assert_good(seed, &outcome);
            let counts = outcome.counts;
            assert!(counts.accepted >= 250 && counts.kills == 6, "{counts:?}");
            assert!(counts.reruns > 0 && counts.canceled > 0, "{counts:?}");
        }
    }
}
