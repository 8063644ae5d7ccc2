//! The addresses of the running service.

/// Where the service is.
#[derive(Clone, Copy)]
pub(crate) struct Urls<'a> {
    pub(crate) api: &'a str,
    /// The operators' page. `None`: it is off.
    pub(crate) admin: Option<&'a str>,
}
