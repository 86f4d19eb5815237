//! Whether a collector is up: rise and fall counts over probes.

/// A collector's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    is_up: bool,
    /// Results in a row that contradict the state.
    against: u32,
}

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthChange {
    /// Failed.
    Fell,
    /// Came back.
    Rose,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            is_up: true,
            against: 0,
        }
    }
}

impl Health {
    /// Whether it is taken to be up.
    pub fn is_up(&self) -> bool {
        self.is_up
    }

    /// Takes the results of `count` probes that all ended alike.
    pub fn observe(
        &mut self,
        is_good: bool,
        count: u32,
        fall: u32,
        rise: u32,
    ) -> Option<HealthChange> {
        if count == 0 {
            return None;
        }
        if is_good == self.is_up {
            self.against = 0;
            return None;
        }
        self.against = self.against.saturating_add(count);
        let (needed, change) = if self.is_up {
            (fall, HealthChange::Fell)
        } else {
            (rise, HealthChange::Rose)
        };
        if self.against < needed {
            return None;
        }
        self.is_up = is_good;
        self.against = 0;
        Some(change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn falls_and_rises_after_runs() {
        let mut health = Health::default();
        let mut observe = |is_good, count| health.observe(is_good, count, 3, 2);
        assert_eq!(observe(false, 2), None);
        assert_eq!(observe(true, 1), None);
        assert_eq!(observe(false, 2), None, "the run was broken");
        assert_eq!(observe(false, 1), Some(HealthChange::Fell));
        assert_eq!(observe(false, 100), None);
        assert_eq!(observe(true, 1), None);
        assert_eq!(observe(true, 1), Some(HealthChange::Rose));
        assert_eq!(observe(false, 3), Some(HealthChange::Fell));
    }
}
