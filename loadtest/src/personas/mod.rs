//! Personas: typical clients of the service.

mod careless_client;
mod property_manager;
mod resident;
mod retrying_integration;

use crate::persona_session::Session;

/// A kind of client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persona {
    /// Writes keys to ten locks of a building at once.
    PropertyManager,
    /// Writes one key, and polls until it is settled.
    Resident,
    /// Loses connections, and repeats requests with the same Idempotency-Key.
    RetryingIntegration,
    /// Sends invalid requests.
    CarelessClient,
}

impl Persona {
    /// All personas, with their names in reports and their shares in percent.
    pub const ALL: [(Self, &str, u16); 4] = [
        (Self::PropertyManager, "property manager", 10),
        (Self::Resident, "resident", 60),
        (Self::RetryingIntegration, "retrying integration", 20),
        (Self::CarelessClient, "careless client", 10),
    ];

    /// A random persona, by the shares.
    pub fn any() -> Self {
        let mut drawn = fastrand::u16(0..100);
        for (persona, _, share) in Self::ALL {
            if drawn < share {
                return persona;
            }
            drawn -= share;
        }
        Self::Resident
    }

    /// Runs the persona once.
    pub async fn run(self, session: &mut Session<'_>) {
        match self {
            Self::PropertyManager => property_manager::run(session).await,
            Self::Resident => resident::run(session).await,
            Self::RetryingIntegration => retrying_integration::run(session).await,
            Self::CarelessClient => careless_client::run(session).await,
        }
    }
}
