use std::{fmt::Display, str::FromStr};

use simulation::{Plan, StoreKind, engine::NetworkFaults};
use test_customers::Random;

pub(crate) const USAGE: &str = "\
usage: simulation [--operations N] [--kills N] [--seed S] [--store engine|memory|redb]
                  [--workers N] [--network usual|bad] [--in-a-world N] [--one-world]
       simulation --mutants [--seed S]";

/// The options of the command.
pub(crate) struct Options {
    operations: usize,
    kills: usize,
    pub(crate) seed: u64,
    store: StoreKind,
    network: NetworkFaults,
    /// The number of workers behind a queue.
    workers: usize,
    /// The number of operations in a world.
    in_a_world: usize,
    /// Whether there is one world, whose seed is `seed` itself.
    one_world: bool,
    /// Whether bugs are planted.
    pub(crate) mutants: bool,
}

impl Options {
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            operations: 10_000,
            kills: 100,
            seed: 1,
            store: StoreKind::Engine,
            network: NetworkFaults::usual(),
            workers: 0,
            in_a_world: 5_000,
            one_world: false,
            mutants: false,
        };
        while let Some(name) = arguments.next() {
            let name = &*name;
            let mut value = || arguments.next().ok_or_else(|| format!("{name}: no value"));
            match name {
                "--workers" => options.workers = at_least(0, name, &value()?)?,
                "--one-world" => options.one_world = true,
                "--mutants" => options.mutants = true,
                "--operations" => options.operations = at_least(1, name, &value()?)?,
                "--kills" => options.kills = at_least(0, name, &value()?)?,
                "--in-a-world" => options.in_a_world = at_least(1, name, &value()?)?,
                "--seed" => options.seed = at_least(0, name, &value()?)?,
                "--network" => options.network = one_of(&NETWORKS, name, &value()?)?,
                "--store" => options.store = one_of(&STORES, name, &value()?)?,
                _ => return Err(format!("{name}: unknown")),
            }
        }
        match (options.store, options.workers) {
            (StoreKind::Redb, 1..) => Err("--workers: a redb file has one process".into()),
            _ => Ok(options),
        }
    }

    /// Returns the plans of the worlds, which share operations and kills.
    pub(crate) fn plans(&self) -> impl Iterator<Item = Plan> + use<'_> {
        let worlds = match self.one_world {
            true => 1,
            false => self.operations.div_ceil(self.in_a_world).max(1),
        };
        let mut seeds = Random::new(self.seed);
        (0..worlds).map(move |world| {
            let seed = match self.one_world {
                true => self.seed,
                false => seeds.next_u64(),
            };
            let share = |all: usize| all * (world + 1) / worlds - all * world / worlds;
            let (operations, kills) = (share(self.operations), share(self.kills));
            Plan {
                network: self.network,
                workers: self.workers,
                ..Plan::new(seed, self.store, operations, kills)
            }
        })
    }
}

const STORES: [(&str, StoreKind); 3] = [
    ("engine", StoreKind::Engine),
    ("memory", StoreKind::Memory),
    ("redb", StoreKind::Redb),
];

const NETWORKS: [(&str, NetworkFaults); 2] = [
    ("usual", NetworkFaults::usual()),
    ("bad", NetworkFaults::bad()),
];

fn at_least<N: FromStr + PartialOrd + Display + Copy>(
    least: N,
    name: &str,
    value: &str,
) -> Result<N, String> {
    let number = value.parse().ok().filter(|number| *number >= least);
    number.ok_or_else(|| format!("{name}: {value} is not a number from {least} on"))
}

fn one_of<T: Copy>(known: &[(&str, T)], name: &str, value: &str) -> Result<T, String> {
    let found = known.iter().find(|(known, _)| *known == value);
    let found = found.map(|(_, found)| *found);
    found.ok_or_else(|| format!("{name}: there is no {value}"))
}
