//! What Amazon is told to make a snapshot of the raw disk, bit for bit: `aws ec2 import-snapshot
//! --cli-input-json file://FILE`. (`import-image` would install drivers in it.)

use serde_json::json;

use super::{Beside, Work};

/// The words for the disk of this name, once it is in a bucket.
pub(super) fn import(work: &Work, disk: &str) -> Beside {
    let what = work.image.config().reference();
    let text = json!({
        "Description": what,
        "DiskContainer": {
            "Description": what,
            "Format": "RAW",
            "UserBucket": {"S3Bucket": "", "S3Key": disk},
        },
    });
    Beside { suffix: ".aws.json", bytes: format!("{text:#}\n").into_bytes() }
}
