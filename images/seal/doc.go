// Package seal closes an archive to all but some, and says who made it.
//
//	to, err := seal.Recipients("age1...")
//	w, err := seal.Encrypt(out, to)              // close it
//	me, err := seal.Identities("key.txt")
//	r, err := seal.Decrypt(in, me)               // of a plain file: the same
//
//	key, err := seal.SigningKey("/root/.ssh/id_ed25519")
//	signature, err := key.Sign(manifest)
//	trusted, err := seal.TrustedKeys("allowed.pub")
//	err = trusted.Check(manifest, signature)
//
// # Encryption
//
// The format is age's (age-encryption.org/v1), which `age -d` opens, too. A
// recipient is one of age's own ("age1..."), or a file of some; an identity is a
// file of its keys, as age-keygen writes it. SSH keys are not taken: the packages
// for them would cost every container 0.25 ms at its start.
//
// # Signatures
//
// The key is an Ed25519 one of OpenSSH's, because people have one, know how to
// make one (ssh-keygen -t ed25519) and already tell each other the public half;
// the signature is OpenSSH's (PROTOCOL.sshsig), of the namespace
// "crucible-image", and of the manifest, which has the digest of every other
// file. `ssh-keygen -Y verify` checks it without us:
//
//	zstd -dc web@3.tar.zst | tar -x
//	ssh-keygen -Y verify -n crucible-image -f allowed_signers -I me -s web@3.sig < web/3/manifest.pb
//
// A key with a passphrase signs by ssh-keygen, which asks for it; so does, named
// by its public half, one that an agent has.
//
// It says what an image is and who vouches for that, not under which name it is
// to be kept. It knows nothing of images or archives.
package seal
