//! What the values of small types are called in the database.

use super::{Outcome, Role, Status, TeamRole, Way};

macro_rules! names {
    ($($type:ident { $($value:ident = $name:literal),+ })+) => {$(
        impl $type {
            pub(super) const fn name(self) -> &'static str {
                match self { $(Self::$value => $name),+ }
            }

            pub(super) fn named(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$value),)+ _ => None }
            }
        }
    )+};
}

names! {
    Role { User = "user", Admin = "admin" }
    Status { Active = "active", Suspended = "suspended" }
    TeamRole { Member = "member", Admin = "admin" }
    Outcome { Done = "done", Denied = "denied" }
    Way {
        Institution = "institution", Account = "account", Device = "device", Credential = "credential",
        Operator = "operator"
    }
}
