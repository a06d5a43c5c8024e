//! The charts of a page, as SVG whose colours the page's style decides.

use std::io;

use plotters::coord::Shift;
use plotters::coord::cartesian::Cartesian2d;
use plotters::coord::types::RangedCoordi32;
use plotters::drawing::{DrawingArea, DrawingAreaErrorKind};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::axis::{Time, Whole};
use super::html::{Html, Svg, grouped};

/// What a colour means. The drawing has a number as its colour, and `style.css` a variable for each scheme.
#[derive(Clone, Copy)]
pub(super) enum Ink {
    Ok,
    Denied,
    Failed,
    Calls,
    Quota,
    Grid,
    Text,
    Muted,
}

const INKS: [(Ink, &str); 8] = [
    (Ink::Ok, "var(--ok)"),
    (Ink::Denied, "var(--denied)"),
    (Ink::Failed, "var(--failed)"),
    (Ink::Calls, "var(--calls)"),
    (Ink::Quota, "var(--quota)"),
    (Ink::Grid, "var(--line)"),
    (Ink::Text, "var(--ink)"),
    (Ink::Muted, "var(--muted)"),
];

impl Ink {
    fn color(self) -> RGBColor {
        RGBColor(0, 0, self as u8)
    }

    fn text(self, h: HPos, v: VPos) -> TextStyle<'static> {
        // The backend divides a size by 1.24. The style chooses the font.
        let font = ("sans-serif", 13.0 * 1.24).into_font();
        TextStyle { font, color: self.color().to_backend_color(), pos: Pos::new(h, v) }
    }
}

pub(super) type Result<T> = std::result::Result<T, DrawingAreaErrorKind<io::Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Pixels<'a> = DrawingArea<SVGBackend<'a>, Cartesian2d<RangedCoordi32, RangedCoordi32>>;

/// Class and width in pixels of both drawings; `style.css` shows one of the two.
const WIDTHS: [(&str, u32); 2] = [("wide", 1000), ("narrow", 360)];

/// Draws a chart twice, so that its texts keep their size on a wide screen and on a phone. `label` says what
/// it shows, for people who cannot see it.
fn draw(label: &str, height: u32, draw: impl Fn(&Area<'_>) -> Result<()>) -> Result<Svg> {
    let mut escaped = Html::default();
    escaped.text(label);
    let label = escaped.into_string();
    let mut charts = String::new();
    for (class, width) in WIDTHS {
        let mut svg = String::new();
        draw(&SVGBackend::with_string(&mut svg, (width, height)).into_drawing_area())?;
        // A text cannot have these: the backend has escaped its quotes.
        for (ink, variable) in INKS {
            let RGBColor(_, _, number) = ink.color();
            svg = svg.replace(&format!("\"#{number:06X}\""), &format!("\"{variable}\""));
        }
        let attributes = format!("<svg class=\"{class}\" role=\"img\" aria-label=\"{label}\" ");
        charts += &svg.replacen("<svg ", &attributes, 1);
    }
    Ok(Svg(charts))
}

/// Numbers that are stacked in one bar, from its bottom or its left.
pub(super) type Stack = Vec<(Ink, u64)>;

/// Bars over time.
pub(super) struct Bars {
    /// Begin of each bar in milliseconds since 1970, and what is in it.
    pub(super) bars: Vec<(u64, Stack)>,
    pub(super) width_ms: u64,
    /// A number that the bars are compared with, as a line.
    pub(super) line: Option<u64>,
}

/// Least width in pixels of a bar with a gap beside it.
const BAR_WITH_GAP_PIXELS: u32 = 4;

impl Bars {
    pub(super) fn draw(&self, label: &str) -> Result<Svg> {
        draw(label, 260, |area| self.draw_on(area))
    }

    fn draw_on(&self, area: &Area<'_>) -> Result<()> {
        let (Some((first, _)), Some((last, _))) = (self.bars.first(), self.bars.last()) else { return Ok(()) };
        let width = area.dim_in_pixel().0;
        let time = Time::new(*first..last + self.width_ms, u64::from(width / 90));
        let most = self.bars.iter().map(|(_, stack)| total(stack)).max();
        let numbers = Whole::new(most.max(self.line).unwrap_or(0));
        let label_width = 14 + 8 * grouped(numbers.end).len() as u32;
        let mut chart = ChartBuilder::on(area)
            .margin_top(10)
            .margin_right(24)
            .x_label_area_size(28)
            .y_label_area_size(label_width)
            .build_cartesian_2d(time.clone(), numbers)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .bold_line_style(Ink::Grid.color())
            .light_line_style(TRANSPARENT)
            .axis_style(Ink::Grid.color())
            .set_all_tick_mark_size(4)
            .x_label_formatter(&|ms| time.label(*ms))
            .y_label_formatter(&|number| grouped(*number))
            .x_label_style(Ink::Muted.text(HPos::Center, VPos::Top))
            .y_label_style(Ink::Muted.text(HPos::Right, VPos::Center))
            .draw()?;
        let gap = u32::from((width - label_width) / self.bars.len() as u32 >= BAR_WITH_GAP_PIXELS);
        for (begin, stack) in &self.bars {
            let mut bottom = 0;
            for (ink, number) in stack.iter().filter(|(_, number)| *number > 0) {
                let corners = [(*begin, bottom), (begin + self.width_ms, bottom + number)];
                let mut bar = Rectangle::new(corners, ink.color().filled());
                bar.set_margin(0, 0, 0, gap);
                chart.plotting_area().draw(&bar)?;
                bottom += number;
            }
        }
        if let Some(number) = self.line {
            let ends = [(*first, number), (last + self.width_ms, number)];
            chart.plotting_area().draw(&PathElement::new(ends, Ink::Quota.color().stroke_width(2)))?;
        }
        Ok(())
    }
}

/// One bar for each name.
pub(super) struct Names {
    /// Name, what is said beside it, and what is in its bar.
    pub(super) rows: Vec<(String, String, Stack)>,
}

/// Height of a name with its bar, and of the bar.
const ROW_PIXELS: i32 = 40;
const BAR_PIXELS: i32 = 10;

/// Mean width of a letter. A longer name than fits is cut, and the table has all of it.
const LETTER_PIXELS: usize = 8;

impl Names {
    pub(super) fn draw(&self, label: &str) -> Result<Svg> {
        draw(label, self.rows.len() as u32 * ROW_PIXELS as u32, |area| self.draw_on(area))
    }

    fn draw_on(&self, area: &Area<'_>) -> Result<()> {
        let (width, height) = area.dim_in_pixel();
        let (width, height) = (width as i32, height as i32);
        let area: Pixels<'_> = area.apply_coord_spec(Cartesian2d::new(0..width, 0..height, (0..width, 0..height)));
        let most = self.rows.iter().map(|(_, _, stack)| total(stack)).max().unwrap_or(0).max(1);
        for ((name, beside, stack), top) in self.rows.iter().zip((0..).step_by(ROW_PIXELS as usize)) {
            let room = (width as usize / LETTER_PIXELS).saturating_sub(beside.len() + 2);
            area.draw(&Text::new(cut(name, room), (0, top + 4), Ink::Text.text(HPos::Left, VPos::Top)))?;
            area.draw(&Text::new(beside.as_str(), (width, top + 4), Ink::Muted.text(HPos::Right, VPos::Top)))?;
            let (mut begin, mut left) = (0, 0);
            for (ink, number) in stack {
                begin += number;
                let right = (begin as f64 / most as f64 * f64::from(width)).round() as i32;
                let corners = [(left, top + 22), (right, top + 22 + BAR_PIXELS)];
                area.draw(&Rectangle::new(corners, ink.color().filled()))?;
                left = right;
            }
        }
        Ok(())
    }
}

fn total(stack: &Stack) -> u64 {
    stack.iter().map(|(_, number)| number).sum()
}

/// The name without letters that control a display, and at most this long.
fn cut(name: &str, letters: usize) -> String {
    let shown = |letter: char| if letter.is_control() { '\u{fffd}' } else { letter };
    match name.char_indices().nth(letters) {
        None => name.chars().map(shown).collect(),
        Some(_) => name.chars().take(letters.saturating_sub(1)).map(shown).chain(['…']).collect(),
    }
}
