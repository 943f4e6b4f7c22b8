/**
 * Reference values of SEV-SNP guests as a CoRIM (draft-ietf-rats-corim), by the profile for AMD's attestation reports
 * (draft-deeglaze-amd-sev-snp-corim-profile-02). Nothing but the values decides the bytes: no clock, no randomness, and CBOR
 * as RFC 8949 4.2.1 fixes it.
 */
import { cdeEncodeOptions, encode, Tag } from "cbor2";
import { sha256 } from "../runtime/canonical.ts";
import { Refusal } from "../runtime/refusal.ts";
import type { HostValues, SnpTcb } from "./host-values.ts";
import type { SnpReferenceValue } from "./reference-values.ts";

/** One payload's guests. */
export interface CorimPayload {
  /** The manifest's. */
  name: string;
  /** At least one. */
  guests: readonly SnpReferenceValue[];
  guestPolicy: bigint;
}

const profile = "tag:amd.com,2024:snp-corim-profile";
/**
 * 1.3.6.1.4.1.3704.3.1, reports that a chip's own key (VCEK) signs. CoRIM's OIDs are RFC 9090's, without ASN.1's tag and
 * length; the profile's text prints this one with both, which verifiers that decode OIDs do not take.
 */
const chipClass = bytesOf("2b060104019c780301");

/** CBOR tags. */
const tags = { uri: 32, oid: 111, corim: 501, comid: 506, svn: 552, bytes: 560 } as const;
/** Named Information Hash Algorithm Registry. */
const sha384 = 7;
/** By which the profile names the fields of a report. */
const fields = { policy: 2, measurement: 641, reportedTcb: 647 } as const;
/** Members of a measurement-values-map. */
const value = { svn: 1, digests: 2, rawValue: 4 } as const;

/**
 * An unsigned CoRIM with one CoMID for each guest of each payload, in their order. Of `hosts` it has the chips (an environment
 * each) and the security versions, each of which is one more set of values that is accepted.
 *
 * @throws Refusal where security versions are given, but none for a product whose guests are in it
 */
export function corim(payloads: readonly CorimPayload[], hosts: HostValues = {}): Uint8Array {
  const comids = payloads.flatMap(({ name, guests, guestPolicy }) =>
    guests.map((guest) => {
      const triples = new Map([[0, referenceTriples(guest, guestPolicy, hosts)]]);
      // A tag's id never stands for other values.
      const id = `contrast-runtime/${name}/${guest.model ?? "IGVM"}/${guest.vcpus}-vcpus/${sha256(cbor(triples))}`;
      const comid = new Map<number, unknown>([
        [1, new Map([[0, id]])],
        [4, triples],
      ]);
      return new Tag(tags.comid, cbor(comid));
    }),
  );
  return cbor(
    new Tag(
      tags.corim,
      new Map<number, unknown>([
        [0, `contrast-runtime/${sha256(cbor(comids))}`],
        [1, comids],
        [3, new Tag(tags.uri, profile)],
      ]),
    ),
  );
}

/** Each is accepted: for every chip and every set of security versions. */
function referenceTriples(guest: SnpReferenceValue, guestPolicy: bigint, hosts: HostValues) {
  const { chipIds = [undefined] } = hosts;
  return chipIds.flatMap((chip) =>
    tcbsOf(guest, hosts).map((tcb) => [
      new Map<number, unknown>([
        [0, new Map([[0, new Tag(tags.oid, chipClass)]])],
        ...(chip === undefined ? [] : [[1, new Tag(tags.bytes, bytesOf(chip))] as const]),
      ]),
      [
        measured(fields.policy, value.rawValue, new Tag(tags.bytes, littleEndian(guestPolicy))),
        measured(fields.measurement, value.digests, [[sha384, bytesOf(guest.measurement)]]),
        ...(tcb === undefined ? [] : [measured(fields.reportedTcb, value.svn, new Tag(tags.svn, tcbVersion(tcb)))]),
      ],
    ]),
  );
}

const measured = (field: number, kind: number, content: unknown) =>
  new Map<number, unknown>([
    [0, field],
    [1, new Map([[kind, content]])],
  ]);

/** Those that can be of a host of the guest; undefined: none is compared. */
function tcbsOf({ product }: SnpReferenceValue, { snpTcb }: HostValues): (SnpTcb | undefined)[] {
  if (snpTcb === undefined) return [undefined];
  const its = snpTcb.filter((tcb) => tcb.product === undefined || product === undefined || tcb.product === product);
  if (its.length > 0) return its;
  // Without a value the guest would be accepted on any firmware.
  throw new Refusal(
    "usage",
    `--snp-tcb has no value for ${product}, whose guests are among the values: give one for it, too, or one without a product.`,
  );
}

/** REPORTED_TCB as a number (AMD's publication 56860, TCB_VERSION of Milan and Genoa). */
const tcbVersion = ({ bootloader, tee, snp, microcode }: SnpTcb): bigint =>
  BigInt(bootloader) | (BigInt(tee) << 8n) | (BigInt(snp) << 48n) | (BigInt(microcode) << 56n);

/** As the 8 bytes of a report's field. */
function littleEndian(number: bigint): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, number, true);
  return bytes;
}

/** No Buffer, which the encoder would write as JSON does. */
function bytesOf(hex: string): Uint8Array {
  return Uint8Array.from(Buffer.from(hex, "hex"));
}

const cbor = (data: unknown): Uint8Array => encode(data, cdeEncodeOptions);
