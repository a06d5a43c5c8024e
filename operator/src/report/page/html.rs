//! A page in the making. The log is untrusted, so only text of the program itself becomes tags.

use std::fmt::Display;

/// HTML so far. [`tags`](Self::tags) takes only constants, so no text of a log can become a tag.
#[derive(Default)]
pub(super) struct Html(String);

/// A drawing of `chart.rs`, in which all texts are escaped.
pub(super) struct Svg(pub(super) String);

impl Html {
    pub(super) fn tags(&mut self, tags: &'static str) -> &mut Self {
        self.0.push_str(tags);
        self
    }

    /// Adds any text, as text or as the value of an attribute in double quotes.
    pub(super) fn text(&mut self, text: impl Display) -> &mut Self {
        for letter in text.to_string().chars() {
            match letter {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                letter => self.0.push(if letter.is_control() { '\u{fffd}' } else { letter }),
            }
        }
        self
    }

    /// Adds a name of the log. Without isolation, a right-to-left letter in it would reorder its neighbours.
    pub(super) fn name(&mut self, name: &str) -> &mut Self {
        self.tags("<bdi>").text(name).tags("</bdi>")
    }

    /// Adds a number for people, and for programs as the attribute `value`.
    pub(super) fn number(&mut self, number: u64) -> &mut Self {
        self.tags("<data value=\"").text(number).tags("\">").text(grouped(number)).tags("</data>")
    }

    /// Adds a share with one digit after the point, and for programs as in `--json`.
    pub(super) fn percent(&mut self, share: f64) -> &mut Self {
        self.tags("<data value=\"").text(share).tags("\">").text(percent(share)).tags("</data>")
    }

    pub(super) fn chart(&mut self, chart: &Svg) -> &mut Self {
        self.0.push_str(&chart.0);
        self
    }

    pub(super) fn into_string(self) -> String {
        self.0
    }
}

/// The number with a comma between thousands.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let mut grouped = digits[..first].to_owned();
    for place in (first..digits.len()).step_by(3) {
        grouped += if grouped.is_empty() { "" } else { "," };
        grouped += &digits[place..place + 3];
    }
    grouped
}

pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_end_its_element_or_attribute() {
        let mut html = Html::default();
        html.tags("<p title=\"").text("\"><img onerror='x'>\u{1b}&").tags("\">");
        let escaped = "&quot;&gt;&lt;img onerror=&#39;x&#39;&gt;\u{fffd}&amp;";
        assert_eq!(html.into_string(), format!("<p title=\"{escaped}\">"));
    }

    #[test]
    fn thousands_are_grouped() {
        let grouped = [0, 999, 1_000, 12_345, 123_456, 1_000_000, u64::MAX].map(grouped);
        let expected = ["0", "999", "1,000", "12,345", "123,456", "1,000,000", "18,446,744,073,709,551,615"];
        assert_eq!(grouped, expected);
    }
}
