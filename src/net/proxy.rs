//! Which proxy leads to a machine: the variables that curl knows, in both letter cases, and `NO_PROXY`.

use crate::secret::Secret;

/// Proxies by scheme, and the machines that are reached without one.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    variables: Vec<(String, Secret)>,
}

impl Proxies {
    /// From variables such as `HTTPS_PROXY`, in either letter case; later ones win.
    #[must_use]
    pub fn new(variables: Vec<(String, Secret)>) -> Self {
        Self { variables }
    }

    /// The variables, for a step.
    #[must_use]
    pub fn variables(&self) -> &[(String, Secret)] {
        &self.variables
    }
}
