//! The one font of every chart, embedded, and the width of a text in it.
//!
//! Invariant: layout, SVG and PNG use the same metrics; no font of the system is ever read.

use plotters::style::{FontDesc, FontFamily, FontStyle, register_font};
use std::sync::Once;

/// Family as written into SVG. Verdana has nearly the same widths where DejaVu Sans is missing. Registered under this
/// whole text, so that the bitmap finds the embedded font by the same name.
pub const FAMILY: &str = "DejaVu Sans, Verdana, sans-serif";

static BYTES: &[u8] = include_bytes!("../../assets/DejaVuSans.ttf");

/// Height above the baseline that capitals and digits reach, in em.
pub const ASCENT: f64 = 0.76;
/// Depth below the baseline, in em.
pub const DESCENT: f64 = 0.24;

/// Line height of the font's own table, in em: what the bitmap's rasteriser calls the size of a font.
pub const RASTER_SIZE: f64 = 2384.0 / 2048.0;

/// A description of the font at a size in the rasteriser's measure.
#[must_use]
pub fn description(raster_size: f64) -> FontDesc<'static> {
    static REGISTER: Once = Once::new();
    REGISTER.call_once(|| {
        let registered = register_font(FAMILY, FontStyle::Normal, BYTES).is_ok();
        assert!(registered, "the embedded font is not a font");
    });
    FontDesc::new(FontFamily::Name(FAMILY), raster_size, FontStyle::Normal)
}

/// Width of a text whose em is `size`, in the same unit.
#[must_use]
pub fn width(text: &str, size: f64) -> f64 {
    const EM: f64 = 1000.0;
    let (wide, _) = description(EM * RASTER_SIZE).box_size(text).expect("the embedded font is registered above");
    f64::from(wide) * size / EM
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_are_those_of_the_font() {
        // Advance widths of DejaVu Sans in 1/2048 em: digits 1303, "i" 569.
        assert!((width("0", 100.0) - 63.6).abs() < 0.1);
        assert!((width("i", 100.0) - 27.8).abs() < 0.1);
        assert!((width("00", 10.0) - 2.0 * width("0", 10.0)).abs() < 0.02);
    }
}
