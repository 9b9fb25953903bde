-- Whether the kernel confined the process that parsed the document: no sockets, no programs, no files to write. What is there
-- already was parsed where nobody asked; it counts as confined, and is told anew when it changes.
ALTER TABLE document ADD COLUMN confined boolean NOT NULL DEFAULT true;
