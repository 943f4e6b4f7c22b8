import * as z from "zod";
import { measurementInputs } from "./measurement-inputs.ts";

/** What a payload file is for. The names are the ones that the document and Kata's configuration use. */
export const fileRoles = [
  "shim",
  "vmm",
  "igvm",
  "firmware",
  "kernel",
  "initrd",
  "rootfs",
  "rootfs-extension",
  "snapshotter",
  "kata-runtime",
  "vmm-data",
] as const;
export type FileRole = (typeof fileRoles)[number];

/** A path below the runtime's directory: relative, normalized, ASCII without spaces, never above its root. */
export const relativePath = z
  .string()
  .max(255)
  .regex(/^(?!.*(^|\/)\.{1,2}(\/|$))[A-Za-z0-9._+@-]+(\/[A-Za-z0-9._+@-]+)*$/, {
    error: "must be a relative path of letters, digits and ._+@- without . or .. segments",
  });

const sha256Hex = z.string().regex(/^[0-9a-f]{64}$/, { error: "must be 64 lower-case hex digits (SHA-256)" });

/** The name of a payload: of its manifest, and of a directory in the installer's image. */
export const payloadName = z
  .string()
  .regex(/^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$/, { error: "must be lower-case letters, digits, . and -" });

/** One file that the runtime needs on a node. */
export const payloadFile = z.strictObject({
  role: z.enum(fileRoles),
  /** Below `/opt/edgeless/<handler>/`. */
  path: relativePath,
  mode: z.enum(["0755", "0644"]),
  /** Bytes. */
  size: z.int().min(0),
  sha256: sha256Hex,
});
export type PayloadFile = z.infer<typeof payloadFile>;

/** How the guest image is booted. Measured: a changed value here changes launch measurements. */
export const guestImage = z.strictObject({
  rootfsType: z.enum(["ext4", "erofs", "xfs"]),
  /** Appended by Kata to its own parameters: `hypervisor.*.kernel_params`. */
  kernelParams: z.string(),
  /** Kata's `kernel_verity_params`; "" where the command line or the IGVM file already contains the root hash. */
  kernelVerityParams: z.string(),
  /** Images that the guest mounts over the first one, of which runtime-rs composes it since Kata 4.0; in Kata's order. */
  extensions: z
    .array(
      z.strictObject({
        /** By which the guest knows it. */
        name: z.string().regex(/^[A-Za-z0-9_-]{1,20}$/, { error: "must be letters, digits, - and _" }),
        /** Of a file with the role rootfs-extension. */
        path: relativePath,
        /** As in kernelVerityParams. */
        verityParams: z.string(),
      }),
    )
    .optional(),
});
export type GuestImage = z.infer<typeof guestImage>;

/**
 * The description of a payload: the files that one runtime needs on a node. Written by the lock command, never by hand.
 * `source` says where the files were fetched from; `measurement` holds the inputs of launch measurements
 * (see ../measure), so that a preview computes reference values without the files.
 */
export const manifestSchema = z.strictObject({
  schemaVersion: z.literal(1),
  name: payloadName,
  /** See flavours.ts. */
  flavour: z.string(),
  /** Version of the Kata release, such as "3.32.0"; "none" for `local`. */
  kataVersion: z.string(),
  source: z.strictObject({
    kind: z.enum(["kata-release", "oci-image", "files", "node"]),
    reference: z.string(),
    /**
     * Whose signature the lock command checked: "cosign key sha256:<hex of the key>", or "attested by <workflow>@<ref>",
     * the workflow of Kata's repository on GitHub that built the archive. Without it, nobody's.
     */
    signature: z
      .string()
      .regex(
        /^(cosign key sha256:[0-9a-f]{64}|attested by https:\/\/github\.com\/kata-containers\/kata-containers\/[\w./-]{1,100}@refs\/[\w./-]{1,100})$/,
      )
      .optional(),
  }),
  /** Sorted by path. */
  files: z.array(payloadFile).min(1),
  /** What Kata's configuration says about the guest image, as its builder published it. Every VM platform needs it. */
  guest: guestImage.optional(),
  measurement: measurementInputs.optional(),
});
export type Manifest = z.infer<typeof manifestSchema>;
