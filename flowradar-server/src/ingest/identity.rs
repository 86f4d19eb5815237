//! Who may report for which switch.

use std::collections::HashMap;
use std::fmt::{self, Debug, Formatter};

use flowradar_core::flowset::SwitchName;
use serde::Deserialize;

/// A secret text. Shows in no log.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

/// Who may report for a switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The switch.
    pub switch: SwitchName,
    /// Token that the agent shows as `authorization: Bearer TOKEN`.
    pub token: Option<Secret>,
    /// DNS name in the agent's certificate, if it is not the switch's name.
    pub certificate_name: Option<String>,
}

/// What an agent has shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// DNS names of a client certificate that was verified.
    pub certificate_names: Vec<String>,
    /// A token.
    pub token: Option<Secret>,
}

/// Decides who may report for which switch.
#[derive(Clone, Debug, Default)]
pub struct Identities {
    by_switch: HashMap<SwitchName, Identity>,
    /// Whether agents that show nothing may report for switches that are not listed.
    open: bool,
}

/// Why an agent may not report for a switch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The agent showed neither certificate nor token.
    #[error(
        "switch {switch}: show a client certificate with this name, or the switch's token as \
         \"authorization: Bearer TOKEN\""
    )]
    NothingShown {
        /// The switch.
        switch: SwitchName,
    },
    /// What the agent showed is another's.
    #[error("switch {switch}: neither certificate nor token are this switch's")]
    Foreign {
        /// The switch.
        switch: SwitchName,
    },
}

impl Identities {
    /// Identities as listed. If `open`, agents may also report for switches that are not listed without
    /// showing anything: for a network that is trusted as a whole, and for trying things out.
    pub fn new(identities: impl IntoIterator<Item = Identity>, open: bool) -> Self {
        let by_switch = identities
            .into_iter()
            .map(|identity| (identity.switch.clone(), identity));
        Self {
            by_switch: by_switch.collect(),
            open,
        }
    }

    /// Checks that an agent may report for a switch.
    ///
    /// A certificate stands for the switch of the same name, or for the one whose `certificate_name` it
    /// has. A token stands for the switch that it is listed with, and for no other.
    ///
    /// # Errors
    /// If it may not.
    pub fn check(
        &self,
        switch: &SwitchName,
        credentials: &Credentials,
    ) -> Result<(), IdentityError> {
        let identity = self.by_switch.get(switch);
        let certificate_name = identity
            .and_then(|identity| identity.certificate_name.as_deref())
            .unwrap_or(switch.as_str());
        let by_certificate = credentials
            .certificate_names
            .iter()
            .any(|name| name.eq_ignore_ascii_case(certificate_name));
        let by_token = identity
            .and_then(|identity| identity.token.as_ref())
            .zip(credentials.token.as_ref())
            .is_some_and(|(expected, shown)| expected.matches(shown));
        if by_certificate || by_token {
            return Ok(());
        }
        let shows_nothing = credentials.certificate_names.is_empty() && credentials.token.is_none();
        match (identity, shows_nothing) {
            (None, true) if self.open => Ok(()),
            (_, true) => Err(IdentityError::NothingShown {
                switch: switch.clone(),
            }),
            (_, false) => Err(IdentityError::Foreign {
                switch: switch.clone(),
            }),
        }
    }
}

impl Secret {
    /// A secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, to be sent to where it belongs.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Compares two secrets in a time that does not depend on where they differ.
    pub fn matches(&self, other: &Self) -> bool {
        let (a, b) = (self.0.as_bytes(), other.0.as_bytes());
        let difference = a
            .iter()
            .zip(b)
            .fold(a.len() ^ b.len(), |sum, (a, b)| sum | usize::from(a ^ b));
        difference == 0 && !a.is_empty()
    }
}

impl Debug for Secret {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn switch(name: &str) -> SwitchName {
        name.parse().expect("a switch name")
    }

    fn shown(certificate: &[&str], token: Option<&str>) -> Credentials {
        Credentials {
            certificate_names: certificate.iter().map(|&name| name.to_owned()).collect(),
            token: token.map(Secret::new),
        }
    }

    #[test]
    fn a_switch_reports_for_itself_only() {
        let identities = Identities::new(
            [
                Identity {
                    switch: switch("leaf-1"),
                    token: Some(Secret::new("one")),
                    certificate_name: None,
                },
                Identity {
                    switch: switch("leaf-2"),
                    token: Some(Secret::new("two")),
                    certificate_name: Some("leaf2.example.net".into()),
                },
            ],
            true,
        );
        let allowed = |name, certificate: &[&str], token| {
            identities.check(&switch(name), &shown(certificate, token))
        };
        let foreign = |name| {
            Err(IdentityError::Foreign {
                switch: switch(name),
            })
        };
        assert_eq!(allowed("leaf-1", &[], Some("one")), Ok(()));
        assert_eq!(allowed("leaf-2", &[], Some("one")), foreign("leaf-2"));
        assert_eq!(allowed("leaf-3", &[], Some("one")), foreign("leaf-3"));
        assert_eq!(allowed("leaf-1", &["leaf-1"], None), Ok(()));
        assert_eq!(allowed("leaf-3", &["leaf-3"], None), Ok(()));
        assert_eq!(allowed("leaf-2", &["leaf2.example.net"], None), Ok(()));
        assert_eq!(allowed("leaf-2", &["leaf-2"], None), foreign("leaf-2"));
        assert_eq!(allowed("leaf-1", &["leaf-3"], None), foreign("leaf-1"));
        // Open to switches that are not listed, but not to the others.
        assert_eq!(allowed("leaf-3", &[], None), Ok(()));
        assert_eq!(
            allowed("leaf-1", &[], None),
            Err(IdentityError::NothingShown {
                switch: switch("leaf-1")
            })
        );
        let closed = Identities::new([], false);
        assert!(closed.check(&switch("leaf-3"), &shown(&[], None)).is_err());
    }

    #[test]
    fn secrets_match_only_themselves_and_are_not_shown() {
        let secret = Secret::new("hunter2");
        assert!(secret.matches(&Secret::new("hunter2")));
        for other in ["hunter3", "hunter", "hunter22", ""] {
            assert!(!secret.matches(&Secret::new(other)), "{other}");
        }
        assert!(!Secret::new("").matches(&Secret::new("")));
        assert!(!format!("{secret:?}").contains("hunter"));
    }
}
