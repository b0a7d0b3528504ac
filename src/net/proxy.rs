//! Which proxy leads to a machine: the variables that curl knows, in both letter cases, and `NO_PROXY`.

use crate::secret::Secret;

/// Proxies by scheme, and the machines that are reached without one.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    variables: Vec<(String, Secret)>,
}

const NAMES: [&str; 6] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "FTP_PROXY",
    "SOCKS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
];

impl Proxies {
    /// From this process's environment, in either letter case.
    #[must_use]
    pub fn from_env() -> Self {
        let names = NAMES
            .iter()
            .flat_map(|name| [(*name).to_owned(), name.to_ascii_lowercase()]);
        let variables = names
            .filter_map(|name| {
                let value = std::env::var(&name).ok()?;
                Some((name, Secret::new(value)))
            })
            .collect();
        Self { variables }
    }

    /// The same with other variables, in either letter case, in the place of those of these names.
    #[must_use]
    pub fn with(mut self, variables: &[(String, Secret)]) -> Self {
        for (name, _) in variables {
            self.variables.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        }
        for (name, value) in variables {
            for name in [name.to_ascii_uppercase(), name.to_ascii_lowercase()] {
                self.variables.push((name, value.clone()));
            }
        }
        self
    }

    /// The variables, for a step.
    #[must_use]
    pub fn variables(&self) -> &[(String, Secret)] {
        &self.variables
    }
}
