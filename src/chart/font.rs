//! The one font of every chart, embedded: widths of texts and pixels of glyphs.
//!
//! Invariant: layout, SVG and PNG use the same metrics; no font of the system is ever read.

use ab_glyph::{Font, FontRef, PxScale, ScaleFont, point};
use std::sync::LazyLock;

/// Family as written into SVG. Verdana has nearly the same widths where DejaVu Sans is missing.
pub(super) const FAMILY: &str = "DejaVu Sans, Verdana, sans-serif";

static FONT: LazyLock<FontRef<'static>> = LazyLock::new(|| {
    FontRef::try_from_slice(include_bytes!("../../assets/DejaVuSans.ttf")).expect("the embedded font is a font")
});

/// Height above the baseline that capitals and digits reach, in em.
pub(super) const ASCENT: f64 = 0.76;
/// Depth below the baseline, in em.
pub(super) const DESCENT: f64 = 0.24;

/// The scale at which an em is `size` pixels.
fn scale(size: f64) -> PxScale {
    let font = &*FONT;
    let units_per_em = font.units_per_em().unwrap_or(font.height_unscaled());
    PxScale::from(size as f32 * font.height_unscaled() / units_per_em)
}

/// Calls `each` with every glyph of a text, where it begins, and where the text ends.
fn walk(text: &str, size: f64, mut each: impl FnMut(ab_glyph::GlyphId, f32)) -> f32 {
    let font = FONT.as_scaled(scale(size));
    let (mut x, mut before) = (0.0, None);
    for glyph in text.chars().map(|c| font.glyph_id(c)) {
        x += before.map_or(0.0, |before| font.kern(before, glyph));
        each(glyph, x);
        x += font.h_advance(glyph);
        before = Some(glyph);
    }
    x
}

/// Width of a text whose em is `size`, in the same unit.
#[must_use]
pub(super) fn width(text: &str, size: f64) -> f64 {
    f64::from(walk(text, size, |_, _| {}))
}

/// Calls `dot` with every pixel that a text covers, and how much of it (0 to 1). The text begins at `x` on the baseline
/// `y`, in pixels.
pub(super) fn pixels(text: &str, size: f64, (x, y): (f64, f64), mut dot: impl FnMut(i32, i32, f64)) {
    walk(text, size, |glyph, advance| {
        let at = point(x as f32 + advance, y as f32);
        if let Some(outline) = FONT.outline_glyph(glyph.with_scale_and_position(scale(size), at)) {
            let corner = outline.px_bounds().min;
            outline.draw(|dx, dy, cover| {
                dot(corner.x as i32 + dx as i32, corner.y as i32 + dy as i32, f64::from(cover.clamp(0.0, 1.0)));
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_are_those_of_the_font() {
        // Advance widths of DejaVu Sans in 1/2048 em: digits 1303, "i" 569.
        assert!((width("0", 100.0) - 63.62).abs() < 0.01);
        assert!((width("i", 100.0) - 27.78).abs() < 0.01);
        assert!((width("00", 10.0) - 2.0 * width("0", 10.0)).abs() < 1e-4);
    }

    #[test]
    fn pixels_stay_within_the_measured_box() {
        let (mut covered, size) = (0.0, 40.0);
        pixels("Hjg|0", size, (10.0, 50.0), |x, y, cover| {
            covered += cover;
            let inside = f64::from(x) >= 8.0 && f64::from(x) <= 12.0 + width("Hjg|0", size);
            assert!(inside && f64::from(y) >= 49.0 - size && f64::from(y) <= 51.0 + 0.26 * size, "{x}, {y}");
        });
        assert!(covered > 100.0);
    }
}
