//! Settings from environment variables: a value that is not allowed is an error that names its variable.

use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::error::{Error, Result};

/// Where variables are looked up; an empty one counts as not set.
pub(crate) struct Variables<'a>(&'a dyn Fn(&str) -> Option<OsString>);

#[cfg(test)]
impl<'a> Variables<'a> {
    /// Those that tests make up: changing the process's own would disturb other threads.
    pub(crate) fn of(look_up: &'a dyn Fn(&str) -> Option<OsString>) -> Self {
        Self(look_up)
    }
}

impl Variables<'_> {
    /// Those of this process.
    pub(crate) fn of_process() -> Self {
        Self(&|name| std::env::var_os(name))
    }

    pub(crate) fn os(&self, name: &str) -> Option<OsString> {
        (self.0)(name).filter(|value| !value.is_empty())
    }

    pub(crate) fn text(&self, name: &'static str) -> Result<Option<String>> {
        let Some(value) = self.os(name) else { return Ok(None) };
        value.into_string().map(Some).map_err(|value| wrong(name, &value, "text in UTF-8"))
    }

    /// A whole number in a range.
    pub(crate) fn number(
        &self,
        name: &'static str,
        allowed: RangeInclusive<usize>,
    ) -> Result<Option<usize>> {
        let Some(value) = self.text(name)? else { return Ok(None) };
        let number = value.trim().parse().ok().filter(|number| allowed.contains(number));
        let expected = || format!("{} to {}", allowed.start(), allowed.end());
        number.map(Some).ok_or_else(|| wrong(name, &value, &expected()))
    }

    /// Yes or no.
    pub(crate) fn flag(&self, name: &'static str) -> Result<Option<bool>> {
        let Some(value) = self.text(name)? else { return Ok(None) };
        match value.trim().to_ascii_lowercase().as_str() {
            "1" | "true" | "yes" | "on" => Ok(Some(true)),
            "0" | "false" | "no" | "off" => Ok(Some(false)),
            _ => Err(wrong(name, &value, "1, true, yes, on, 0, false, no, off")),
        }
    }

    /// A value of a type that has names.
    pub(crate) fn named<T: FromStr<Err = Error>>(&self, name: &'static str) -> Result<Option<T>> {
        let Some(value) = self.text(name)? else { return Ok(None) };
        value.trim().parse().map(Some).map_err(|error| match error {
            Error::InvalidArgument { reason, .. } => Error::argument(name, reason),
            other => other,
        })
    }
}

pub(crate) fn wrong(
    name: &'static str,
    value: &(impl std::fmt::Debug + ?Sized),
    allowed: &str,
) -> Error {
    Error::argument(name, format!("is {value:?}, allowed are {allowed}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compute::Compute;

    #[test]
    fn values_are_read_and_wrong_ones_named() {
        let look_up = |name: &str| match name {
            "A_NUMBER" => Some(" 4 ".into()),
            "A_FLAG" => Some("Yes".into()),
            "A_NAME" => Some("int8".into()),
            "NOTHING" => Some("".into()),
            "WRONG" => Some("perhaps".into()),
            _ => None,
        };
        let variables = Variables::of(&look_up);
        assert_eq!(variables.number("A_NUMBER", 1..=4).unwrap(), Some(4));
        assert_eq!(variables.flag("A_FLAG").unwrap(), Some(true));
        assert_eq!(variables.named("A_NAME").unwrap(), Some(Compute::Int8));
        for unset in ["NOTHING", "NOT_SET"] {
            assert_eq!(variables.number(unset, 1..=4).unwrap(), None);
            assert_eq!(variables.flag(unset).unwrap(), None);
            assert_eq!(variables.named::<Compute>(unset).unwrap(), None);
        }
        let message = |error: Error| error.to_string();
        assert_eq!(
            message(variables.number("A_NUMBER", 5..=6).unwrap_err()),
            "A_NUMBER: is \" 4 \", allowed are 5 to 6"
        );
        assert_eq!(
            message(variables.flag("WRONG").unwrap_err()),
            "WRONG: is \"perhaps\", allowed are 1, true, yes, on, 0, false, no, off"
        );
        let named = message(variables.named::<Compute>("WRONG").unwrap_err());
        assert!(named.starts_with("WRONG: is \"perhaps\", allowed are auto,"), "{named}");
    }
}
