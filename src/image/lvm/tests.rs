//! Groups made by LVM2's own programs; what is in their volumes is put where LVM2 says.

mod hostile;
mod made;
mod workshop;
