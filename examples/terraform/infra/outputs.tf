output "image" {
  description = "The image: its id where one was published, else the file."
  value       = local.chosen.image_id != "" ? local.chosen.image_id : terraform_data.image.output.file
}

output "box1" {
  description = "The system in it, to be compared with that of a dev box (devbox parity)."
  value       = var.devbox_box.box1
}
