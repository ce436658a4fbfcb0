//! What the control loop does about exports.

use crate::{base::OtlpSignal, daemon::Control};

impl Control {
    /// Another configuration is in effect. Log records are the log's.
    pub(in crate::daemon) fn follow_otlp(&mut self) {
        let state = self.log.otlp().of(OtlpSignal::Metrics);
        let (endpoints, log) = (&self.endpoints, &self.log);
        let followed = self.otlp.follow(
            self.state.config(),
            state,
            &self.broker,
            || endpoints.metrics_source(),
            || log.export_thread(),
        );
        if let Err(error) = followed {
            tracing::error!(
                event = "otlp",
                "export of metrics by OTLP: start its thread: {error}"
            );
        }
    }

    /// Exports for the last time, within two seconds.
    pub(in crate::daemon) async fn end_otlp(&mut self) {
        self.otlp.end().await;
    }
}
