//! The contenders.

/// The contenders in the order of the columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contender {
    Limit,
    Floor,
    Ours,
    InAxum,
    Hand,
    Careful,
}

impl Contender {
    pub(crate) const ALL: [Self; 6] = [
        Self::Limit,
        Self::Floor,
        Self::Ours,
        Self::InAxum,
        Self::Hand,
        Self::Careful,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Floor => "floor",
            Self::Ours => "ours",
            Self::InAxum => "ours, axum",
            Self::Hand => "hand",
            Self::Careful => "hand, careful",
        }
    }

    pub(crate) fn from_name(name: &str) -> Self {
        let found = Self::ALL.into_iter().find(|one| one.name() == name);
        found.unwrap_or_else(|| panic!("{name}: no contender"))
    }
}
