//! Options that are set by name, as a file of imports and the guided import do.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// An option's value, as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// `null` or nothing: the default of the program.
    Absent,
    Text(String),
    List(Vec<String>),
}

/// A group of options that can be set by name.
pub(super) trait SetOption {
    /// Sets the option `name`, which is written without hyphens at its beginning.
    ///
    /// # Errors
    /// [`Unset`] if the group has no such option, or the reason why the value is invalid.
    fn set(&mut self, name: &str, value: &Value) -> Result<(), Unset>;
}

/// Sets the option `name` of the first group that has the option.
///
/// # Errors
/// As for [`SetOption::set`].
pub(super) fn set_in(
    groups: &mut [&mut dyn SetOption],
    name: &str,
    value: &Value,
) -> Result<(), Unset> {
    for group in groups {
        match group.set(name, value) {
            Err(Unset::UnknownName) => {}
            done => return done,
        }
    }
    Err(Unset::UnknownName)
}

/// Why an option was not set.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unset {
    /// The group has no option with this name.
    UnknownName,
    /// The value is invalid, for this reason.
    Invalid(String),
}

impl From<String> for Unset {
    fn from(reason: String) -> Self {
        Self::Invalid(reason)
    }
}

impl Value {
    /// The text of a single value.
    pub(super) fn text(&self) -> Result<&str, Unset> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Absent | Self::List(_) => Err("expected one value".to_owned().into()),
        }
    }

    /// The value as a type.
    pub(super) fn parsed<T: FromStr<Err: Display>>(&self) -> Result<T, Unset> {
        self.read(|text| text.parse().map_err(|error: T::Err| error.to_string()))
    }

    /// The value as `read` understands it.
    pub(super) fn read<T>(&self, read: impl Fn(&str) -> Result<T, String>) -> Result<T, Unset> {
        Ok(read(self.text()?)?)
    }

    /// An integer in a range.
    pub(super) fn integer<T>(&self, range: RangeInclusive<T>) -> Result<T, Unset>
    where
        T: FromStr<Err: Display> + PartialOrd + Display,
    {
        let number = self.parsed()?;
        if !range.contains(&number) {
            let (least, most) = range.into_inner();
            return Err(format!("{number} is not in {least}..={most}").into());
        }
        Ok(number)
    }

    /// The items of a list; one text may hold several, separated by commas.
    pub(super) fn items<T, E: Display>(
        &self,
        read: impl Fn(&str) -> Result<T, E>,
    ) -> Result<Vec<T>, Unset> {
        let read = |item: &str| read(item).map_err(|error| error.to_string().into());
        match self {
            Self::List(items) => items.iter().map(|item| read(item)).collect(),
            one => one.text()?.split(',').map(read).collect(),
        }
    }

    /// The value of a switch.
    pub(super) fn switch(&self) -> Result<bool, Unset> {
        self.read(|text| match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err("expected true or false".to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_parsed_as_their_type() {
        let text = |text: &str| Value::Text(text.into());
        assert_eq!(text("7").integer(1..=7u32), Ok(7));
        let error = text("0").integer(1..=7u32).unwrap_err();
        assert_eq!(error, Unset::Invalid("0 is not in 1..=7".into()));
        assert_eq!(text("true").switch(), Ok(true));
        assert!(text("yes").switch().is_err() && Value::Absent.switch().is_err());
        assert_eq!(text("9.2.0").parsed(), Ok(crate::version::Version::new(9, 2, 0)));
        let items = |value: &Value| value.items(str::parse::<u32>);
        assert_eq!(items(&text("1,2")), items(&Value::List(vec!["1".into(), "2".into()])));
        assert!(items(&text("1,x")).is_err());
        assert!(Value::List(vec!["1".into()]).parsed::<u32>().is_err());
    }
}
