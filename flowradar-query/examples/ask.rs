//! Asks a store, and says how long that took.
//!
//! ```sh
//! cargo run --release --example ask -- big/flows "select count(*) from flows"
//! ```

use std::path::Path;
use std::time::Instant;

use flowradar_query::{Format, query};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let store = arguments.next().ok_or("name the store's folder")?;
    for sql in arguments {
        let begin = Instant::now();
        let rows = query(
            Path::new(&store),
            &sql,
            Format::Table,
            &mut std::io::stdout(),
        )?;
        eprintln!("{rows} rows in {:.2} s", begin.elapsed().as_secs_f64());
    }
    Ok(())
}
