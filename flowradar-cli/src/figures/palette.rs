//! Colours that people who cannot tell red from green can tell apart (Okabe and Ito, "Color
//! universal design", 2008).
//!
//! Ink, paper and grid are recognized by the style sheet of the report page, which turns them around
//! where a reader prefers a dark page: change them there too.

use plotters::style::RGBColor;

pub(crate) const BLACK: RGBColor = RGBColor(0x22, 0x22, 0x22);
pub(crate) const BLUE: RGBColor = RGBColor(0x00, 0x72, 0xB2);
pub(crate) const GREEN: RGBColor = RGBColor(0x00, 0x9E, 0x73);
pub(crate) const GREY: RGBColor = RGBColor(0x99, 0x99, 0x99);
pub(crate) const ORANGE: RGBColor = RGBColor(0xE6, 0x9F, 0x00);
pub(crate) const PAPER: RGBColor = RGBColor(0xFF, 0xFF, 0xFF);
pub(crate) const PURPLE: RGBColor = RGBColor(0xCC, 0x79, 0xA7);
pub(crate) const SKY: RGBColor = RGBColor(0x56, 0xB4, 0xE9);
pub(crate) const VERMILLION: RGBColor = RGBColor(0xD5, 0x5E, 0x00);

/// Text and axes.
pub(crate) const INK: RGBColor = BLACK;
/// Text of less weight.
pub(crate) const INK_SOFT: RGBColor = RGBColor(0x66, 0x66, 0x66);
/// Lines of the grid.
pub(crate) const GRID: RGBColor = RGBColor(0xE4, 0xE4, 0xE4);
