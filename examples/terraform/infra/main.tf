# Checks that the file is the one that devbox wrote, before anything is made of it. What publishes an
# image goes where `terraform_data.image` stands: azurerm_image, google_compute_image, aws_ebs_snapshot_import,
# openstack_images_image_v2; all of them take a file or what was uploaded of it.

terraform {
  required_version = ">= 1.5"
}

locals {
  chosen = var.devbox_box.outputs[var.output]
  file   = "${path.module}/${local.chosen.path}"
}

resource "terraform_data" "image" {
  # Another disk is another image, however the file is called.
  triggers_replace = local.chosen.bytes1

  input = {
    name   = "${var.devbox_box.name}-${replace(var.devbox_box.version, ".", "-")}"
    file   = local.file
    sha256 = local.chosen.sha256
  }

  lifecycle {
    precondition {
      condition     = filesha256(local.file) == local.chosen.sha256
      error_message = "${local.file} is not the file that devbox wrote: run `devbox build` again."
    }
  }
}
