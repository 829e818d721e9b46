//! `ps`: the processes of a container.

use std::process::Command;

use super::Runtime;
use crate::cgroup::processes;
use crate::error::{Attempt, Error, Result};

impl Runtime {
    /// The processes in a container's cgroup, as this pid namespace numbers them.
    pub fn processes(&self, id: &str) -> Result<Vec<i32>> {
        processes::list(&self.look_at(id)?.record.cgroups)
    }

    /// The lines `ps` prints of those processes, after its heading. Without `options`: `-ef`.
    pub fn process_table(&self, id: &str, options: &[String]) -> Result<String> {
        let pids = self.processes(id)?;
        let mut ps = Command::new("ps");
        if options.is_empty() {
            ps.arg("-ef")
        } else {
            ps.args(options)
        };
        let output = ps.output().attempt(|| "run ps (is it installed? --format json needs none)")?;
        if !output.status.success() {
            return Err(Error::invalid("ps", String::from_utf8_lossy(&output.stderr).trim()));
        }
        filter(&String::from_utf8_lossy(&output.stdout), &pids)
    }
}

fn filter(table: &str, pids: &[i32]) -> Result<String> {
    let mut lines = table.lines();
    let heading = lines.next().unwrap_or_default();
    let column = heading
        .split_ascii_whitespace()
        .position(|name| name == "PID")
        .ok_or_else(|| Error::invalid("the options for ps", "what it prints has no column PID"))?;
    let ours = |line: &&str| {
        let pid = line.split_ascii_whitespace().nth(column).and_then(|pid| pid.parse().ok());
        pid.is_some_and(|pid| pids.contains(&pid))
    };
    let mut text = format!("{heading}\n");
    lines.filter(ours).for_each(|line| {
        text.push_str(line);
        text.push('\n');
    });
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_container_s_lines_are_shown() {
        let table = "UID  PID PPID CMD\nroot  12 1 init 34\nroot  34 1 other\n";
        assert_eq!(filter(table, &[12]).unwrap(), "UID  PID PPID CMD\nroot  12 1 init 34\n");
        assert!(filter("CMD\nx\n", &[12]).is_err());
    }
}
