//! CPU lists on the command line, in the kernel's notation: `0,2-4`.

use std::str::FromStr;

/// A list of CPUs, in the order given, without repetitions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CpuList(pub(crate) Vec<usize>);

/// No machine has more.
const CPUS_MAX: usize = 8192;

impl FromStr for CpuList {
    type Err = String;

    fn from_str(text: &str) -> Result<CpuList, String> {
        let mut cpus = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first, text)?, number(last, text)?);
            if first > last {
                return Err(format!("{text:?}: the range {part} runs backwards"));
            }
            // Bounded: both ends are below CPUS_MAX.
            for cpu in first..=last {
                if cpus.contains(&cpu) {
                    return Err(format!("{text:?} names CPU {cpu} twice"));
                }
                cpus.push(cpu);
            }
        }
        Ok(CpuList(cpus))
    }
}

fn number(text: &str, whole: &str) -> Result<usize, String> {
    match text.trim().parse() {
        Ok(cpu) if cpu < CPUS_MAX => Ok(cpu),
        _ => Err(format!(
            "{whole:?} is no list of CPUs; write numbers and ranges, as in 0,2-4"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_is_read_as_the_kernel_writes_it() {
        for (text, cpus) in [
            ("0", vec![0]),
            ("0,2-4", vec![0, 2, 3, 4]),
            ("3,1", vec![3, 1]),
        ] {
            assert_eq!(text.parse(), Ok(CpuList(cpus)), "{text}");
        }
    }

    #[test]
    fn list_that_is_none_is_refused_with_its_text() {
        for text in ["", "a", "1-", "4-2", "1,1", "0-2,1", "99999", "-1"] {
            let error = text.parse::<CpuList>().unwrap_err();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }
}
