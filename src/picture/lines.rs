//! What so many instances of a program take, in each way: lines over their number.

use super::svg::{Chart, WIDTH, size};
use crate::trial::{Comparison, Trial, Way};

/// RAM of `instances` instances: what each has of its own, and the page cache once. An extrapolation from those that were
/// measured.
fn ram(trial: &Trial, instances: u64, in_flash: bool) -> u64 {
    let image = if in_flash {
        0
    } else {
        trial.ram.image_cache_bytes
    };
    trial.instance_bytes * instances + trial.ram.other_cache_bytes + image
}

/// The lines.
pub fn chart(comparison: &Comparison) -> Chart {
    let mut chart = Chart::new(&format!(
        "RAM of instances of {}",
        comparison.command.join(" ")
    ));
    let most = (comparison.instances * 2).max(10);
    let mut curves: Vec<(&str, String, Vec<u64>)> = Vec::new();
    for trial in &comparison.trials {
        let values = |in_flash| {
            (0..=most)
                .map(|n| if n == 0 { 0 } else { ram(trial, n, in_flash) })
                .collect()
        };
        match trial.way {
            Way::Native => curves.push(("native", "native".to_owned(), values(false))),
            Way::Copy => curves.push(("copied", "copied to RAM".to_owned(), values(false))),
            Way::InPlace => {
                if trial.ram.image_cache_bytes > 0 {
                    curves.push((
                        "cache",
                        "in place, image in the page cache".to_owned(),
                        values(false),
                    ));
                }
                curves.push((
                    "in-place",
                    "in place, image in flash".to_owned(),
                    values(true),
                ));
            }
        }
    }
    let top = curves
        .iter()
        .flat_map(|(_, _, values)| values)
        .copied()
        .max()
        .unwrap_or(0);
    // A power of two: people read KiB and MiB.
    let step = (top / 4).max(1024).next_power_of_two();
    let top = top.div_ceil(step).max(1) * step;
    let (left, high) = (90.0, 300.0);
    let across = f64::from(WIDTH) - left - 20.0;
    let x = |n: u64| left + across * n as f64 / most as f64;
    let y = |bytes: u64| 10.0 + high * (1.0 - bytes as f64 / top as f64);
    for tick in 0..=top / step {
        let at = y(tick * step);
        chart.line(&[(left, at), (left + across, at)], "grid", "");
        chart.text((left - 8.0, at + 4.0), "end faint", &size(tick * step));
    }
    for n in (0..=most).step_by(most.div_ceil(10) as usize) {
        chart.text((x(n) + 4.0, high + 27.0), "end faint", &n.to_string());
    }
    chart.text((left + across, high + 45.0), "end faint", "instances");
    for (colour, _, values) in &curves {
        let points: Vec<(f64, f64)> = (0..)
            .zip(values)
            .skip(1)
            .map(|(n, &bytes)| (x(n), y(bytes)))
            .collect();
        chart.line(&points, "curve", colour);
    }
    let measured = x(comparison.instances.min(most));
    chart.line(
        &[(measured, 10.0), (measured, 10.0 + high)],
        "grid",
        "faint",
    );
    chart.text((measured + 4.0, 22.0), "faint", "measured");
    let legend: Vec<(&str, String)> = curves
        .into_iter()
        .map(|(colour, name, _)| (colour, name))
        .collect();
    chart.legend(high + 58.0, &legend);
    chart
}
