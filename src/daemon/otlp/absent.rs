//! A build without exports: no configuration that names a collector is valid.

use crate::daemon::Control;

impl Control {
    /// Nothing is exported.
    #[allow(
        clippy::unused_self,
        clippy::needless_pass_by_ref_mut,
        reason = "as in a build with exports"
    )]
    pub(in crate::daemon) const fn follow_otlp(&mut self) {}

    /// As above.
    #[allow(
        clippy::unused_self,
        clippy::unused_async,
        clippy::needless_pass_by_ref_mut,
        reason = "as in a build with exports"
    )]
    pub(in crate::daemon) async fn end_otlp(&mut self) {}
}
