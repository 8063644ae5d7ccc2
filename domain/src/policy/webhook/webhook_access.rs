//! Who may read and manage a webhook.

use crate::model::{Identity, Principal, WebhookOwner};

/// The owner of the webhooks that the principal registers: its organization, or every organization for a super key. `None`: the principal
/// is no organization, so it may not use webhooks.
pub fn owner_of(principal: &Principal) -> Option<WebhookOwner> {
    let mut owner = None;
    for identity in principal.identities() {
        match identity {
            Identity::Organization(organization) => {
                return Some(WebhookOwner::Organization(organization.clone()));
            }
            Identity::EveryOrganization => owner = Some(WebhookOwner::EveryOrganization),
            Identity::User(_) | Identity::Subject(_) | Identity::Operator(_) => {}
        }
    }
    owner
}

/// Whether the principal may read the webhooks of this owner and the records of their deliveries: whoever may manage them, and operators.
pub fn may_read(principal: &Principal, owner: &WebhookOwner) -> bool {
    let is_operator = |identity: &Identity| matches!(identity, Identity::Operator(_));
    may_manage(principal, owner) || principal.identities().any(is_operator)
}

/// Whether the principal may read and change the webhooks of this owner. A super key may manage all of them.
pub fn may_manage(principal: &Principal, owner: &WebhookOwner) -> bool {
    principal.identities().any(|identity| match identity {
        Identity::EveryOrganization => true,
        Identity::Organization(organization) => {
            *owner == WebhookOwner::Organization(organization.clone())
        }
        Identity::User(_) | Identity::Subject(_) | Identity::Operator(_) => false,
    })
}
