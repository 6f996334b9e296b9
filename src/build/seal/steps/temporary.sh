# Folders that are empty on a disk: the machine mounts something over them, or they are for one boot.
step temporary
hollow tmp var/tmp run dev proc sys
