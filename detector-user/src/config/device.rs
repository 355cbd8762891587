//! Device names and patterns as the config writes them; what they mean is `attach`'s.

use schemars::Schema;

use crate::{
    attach::DevicePattern,
    yaml::{Scalar, scalar},
};

scalar!(DevicePattern);

impl Scalar for DevicePattern {
    const EXPECTED: &'static str = "a network device's name such as n6, or a pattern such as upf*";

    fn parse(text: &str) -> Result<Self, String> {
        let parsed = text.parse::<Self>();
        parsed.map_err(|error| format!("{error}; expected {}", Self::EXPECTED))
    }

    fn schema() -> Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A device name, or a pattern: * stands for any letters, ? for one, \
                            [0-9] for one of these.",
            "pattern": "^[^/:\\s]+$",
        })
    }
}
