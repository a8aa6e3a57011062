use test_customers::Random;

use crate::Mutant;

/// The bug of a world, if it has one.
#[derive(Debug)]
pub(crate) struct PlantedBug {
    mutant: Option<Mutant>,
    random: Random,
}

impl PlantedBug {
    /// Creates a bug, or none.
    pub(crate) fn new(mutant: Option<Mutant>, random: Random) -> Self {
        Self { mutant, random }
    }

    /// Returns whether the world has this bug.
    pub(crate) fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// Returns whether the world has this bug, and it shows now, as it does once in `number`
    /// times.
    pub(crate) fn shows(&mut self, mutant: Mutant, number: usize) -> bool {
        self.is(mutant) && self.random.one_in(number)
    }
}
