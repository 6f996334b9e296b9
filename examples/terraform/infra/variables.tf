# What `devbox build` writes into terraform.tfvars.json.
variable "devbox_box" {
  description = "The box, and the files that hold its disk."
  type = object({
    name     = string
    version  = string
    arch     = string
    firmware = string
    spec1    = string
    box1     = string
    outputs = map(object({
      path     = string
      size     = number
      sha256   = string
      bytes1   = string
      image_id = string
    }))
  })

  validation {
    condition     = length(distinct([for output in var.devbox_box.outputs : output.bytes1])) <= 1
    error_message = "The outputs hold different disks: run `devbox build` again."
  }
}

variable "output" {
  description = "The output to deploy, by its name in devbox.toml."
  type        = string
  default     = "qcow2"
}
