//! What to tell the operator: one line for each kind of traffic of each wished device.

use std::time::SystemTime;

use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};

use super::{
    device::Layer,
    plan::{HookPoint, Traffic},
    programs::KernelProgram,
    trouble::Notice,
};

/// One kind of traffic of one device, or a wish that no device fits.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DeviceStatus {
    /// The wish it comes from.
    pub pattern: String,
    /// The device; `None` when there is none.
    pub device: Option<String>,
    /// Which packets; `None` when there is no device.
    pub traffic: Option<Traffic>,
    /// Attached or not.
    #[serde(flatten)]
    pub state: State,
}

/// Attached or not.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum State {
    /// Packets are seen.
    Attached {
        /// Where.
        hook: HookPoint,
        /// With which program.
        program: KernelProgram,
        /// What packets start with.
        layer: Layer,
        /// What that means on a user plane.
        sees: String,
        /// Since when.
        #[serde(serialize_with = "rfc3339")]
        since: SystemTime,
    },
    /// The device is there and its packets are not seen.
    NotAttached {
        /// Why.
        reasons: Vec<Notice>,
    },
    /// There is no such device.
    Missing {
        /// Said as a notice.
        reason: Notice,
    },
    /// A pattern that fits no device now, which is as good as any other number.
    Waiting,
}

impl State {
    /// Is this how the operator wanted it?
    pub const fn is_ready(&self) -> bool {
        match self {
            Self::Attached { .. } | Self::Waiting => true,
            Self::NotAttached { .. } | Self::Missing { .. } => false,
        }
    }
}

fn rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&DateTime::<Utc>::from(*time).format("%Y-%m-%dT%H:%M:%S%.3fZ"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn is_flat_and_readable_as_json() {
        let status = DeviceStatus {
            pattern: "n6*".into(),
            device: Some("n6".into()),
            traffic: Some(Traffic::Received),
            state: State::Attached {
                hook: HookPoint::XdpNative,
                program: KernelProgram::XdpEthernet,
                layer: Layer::Ethernet,
                sees: "all".into(),
                since: SystemTime::UNIX_EPOCH + Duration::from_millis(1_500),
            },
        };
        let expected = serde_json::json!({
            "pattern": "n6*",
            "device": "n6",
            "traffic": "received",
            "state": "attached",
            "hook": "xdp-native",
            "program": "detector_xdp_ethernet",
            "layer": "ethernet",
            "sees": "all",
            "since": "1970-01-01T00:00:01.500Z",
        });
        assert_eq!(serde_json::to_value(&status).unwrap(), expected);
    }
}
