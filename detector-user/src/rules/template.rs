//! Templates over what was seen: `"{ue.ip} bought at {http.path}"`.

/// A string with fields in it. (Contract placeholder: the rules module fills it in.)
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Template;

/// JSON whose strings are templates. (Contract placeholder.)
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DataTemplate;
