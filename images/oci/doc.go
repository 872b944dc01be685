// Package oci writes an image as an OCI image layout, a directory that the tools of
// registries take (`skopeo copy oci:DIR docker://HOST/NAME`, `crane push DIR`, `oras cp
// --from-oci-layout`), and reads it again.
//
//	err := oci.Write(dir, oci.Description{Name: "web@3", ...}, func(w io.Writer) error { ... })
//	r, err := oci.Open(dir)
//
// # The layout
//
//	oci-layout                 {"imageLayoutVersion": "1.0.0"}
//	index.json                 names the manifest
//	blobs/sha256/DIGEST        the manifest, the empty configuration, and one layer:
//	                           what `crucible image export` writes
//
// The manifest is that of an artifact (image-spec 1.1, "Guidelines for Artifact
// Usage"), because an image directory is no root filesystem. Its annotations are
// those that checkpointctl, CRI-O and Podman know (org.criu.checkpoint.*).
//
// It speaks to no registry: a client would link TLS and HTTP into what is also the
// first process of every container, and cost each of them 0.3 ms.
package oci
