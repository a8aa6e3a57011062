use simulation::{Plan, StoreKind, engine::NetworkFaults};
use test_customers::Random;

pub(crate) const USAGE: &str = "\
usage: simulation [--operations N] [--kills N] [--seed S] [--store engine|memory]
                  [--network usual|bad] [--in-a-world N] [--one-world]
       simulation --mutants [--seed S]";

/// The options of the command.
pub(crate) struct Options {
    operations: usize,
    kills: usize,
    pub(crate) seed: u64,
    store: StoreKind,
    network: NetworkFaults,
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
            in_a_world: 5_000,
            one_world: false,
            mutants: false,
        };
        while let Some(name) = arguments.next() {
            match &*name {
                "--one-world" => options.one_world = true,
                "--mutants" => options.mutants = true,
                _ => {
                    let value = arguments.next();
                    let value = value.ok_or_else(|| format!("{name}: no value"))?;
                    options.set(&name, &value)?;
                }
            }
        }
        Ok(options)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let number = || value.parse().map_err(|_| format!("{name}: no number"));
        match name {
            "--operations" => self.operations = number()?,
            "--kills" => self.kills = number()?,
            "--in-a-world" => self.in_a_world = number()?.max(1),
            "--seed" => self.seed = value.parse().map_err(|_| "--seed: no number")?,
            "--network" => {
                self.network = match value {
                    "usual" => NetworkFaults::usual(),
                    "bad" => NetworkFaults::bad(),
                    _ => return Err(format!("--network: there is no {value}")),
                };
            }
            "--store" => {
                self.store = match value {
                    "engine" => StoreKind::Engine,
                    "memory" => StoreKind::Memory,
                    _ => return Err(format!("--store: there is no {value}")),
                };
            }
            _ => return Err(format!("{name}: unknown")),
        }
        Ok(())
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
                ..Plan::new(seed, self.store, operations, kills)
            }
        })
    }
}
