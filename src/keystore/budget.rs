//! The work that one file may cost, charged before it is done.

use super::fault::Fault;
use crate::limits::{KDF_ITERATIONS_TOTAL, KDF_STEPS_TOTAL};

/// What a key derivation costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cost {
    /// Iterations, as the file states them.
    pub(crate) iterations: u64,
    /// Blocks of SHA-256, or what takes as long.
    pub(crate) steps: u64,
}

/// What is spent so far.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    spent: Cost,
}

impl Budget {
    /// Whether the cost is still within the bounds.
    pub(crate) fn affords(&self, cost: Cost) -> bool {
        self.after(cost).check().is_ok()
    }

    /// Spends the cost, or refuses the work.
    pub(crate) fn charge(&mut self, cost: Cost) -> Result<(), Fault> {
        let after = self.after(cost);
        after.check()?;
        self.spent = after;
        Ok(())
    }

    fn after(&self, cost: Cost) -> Cost {
        self.spent.plus(cost)
    }
}

impl Cost {
    /// Both together.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            iterations: self.iterations.saturating_add(other.iterations),
            steps: self.steps.saturating_add(other.steps),
        }
    }

    /// Compares a total with the bounds.
    pub(crate) fn check(self) -> Result<(), Fault> {
        if self.iterations > KDF_ITERATIONS_TOTAL {
            let what = "iterations of its key derivations together";
            return Err(Fault::Limit { what, found: self.iterations, limit: KDF_ITERATIONS_TOTAL });
        }
        if self.steps > KDF_STEPS_TOTAL {
            let what = "the work of its key derivations together (in blocks of SHA-256)";
            return Err(Fault::Limit { what, found: self.steps, limit: KDF_STEPS_TOTAL });
        }
        Ok(())
    }
}
