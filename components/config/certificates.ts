import { X509Certificate } from "node:crypto";
import { Refusal } from "../../runtime/refusal.ts";

/** Characters. Some two hundred certificates; every authority of the web together has less. */
const longest = 512 * 1024;

/**
 * The certificates of authorities in a PEM text, each parsed, written anew: what comes out is nothing but the blocks of
 * those certificates, 64 characters a line, whatever stood around them. Comments between blocks are dropped.
 *
 * @throws Refusal whose message continues the name of the value, and repeats nothing of it but certificates' names
 */
export function authorities(pem: string): string {
  return authorityCertificates(pem).map(toPem).join("");
}

/** A sentence for each certificate in PEM that is not valid at that time, because then it proves nothing to anybody. */
export function outdated(pem: string, now: Date): string[] {
  return authorityCertificates(pem).flatMap((certificate) => {
    if (now < new Date(certificate.validFrom))
      return [`${nameOf(certificate)} is valid from ${certificate.validFrom}.`];
    if (now > new Date(certificate.validTo)) return [`${nameOf(certificate)} expired on ${certificate.validTo}.`];
    return [];
  });
}

function authorityCertificates(pem: string): X509Certificate[] {
  if (pem.length > longest) throw refusal(`is longer than ${longest} characters`);
  const certificates: X509Certificate[] = [];
  let block: string[] | undefined;
  for (const line of pem.split(/\r?\n/)) {
    const [, edge, kind] = /^\s*-----(BEGIN|END) (.*)-----\s*$/.exec(line) ?? [];
    if (edge === undefined) {
      block?.push(line.trim());
      continue;
    }
    if (kind !== "CERTIFICATE") throw refusal("holds something other than certificates; keys do not belong in it");
    if ((edge === "BEGIN") !== (block === undefined)) throw refusal(`has a line ${edge} CERTIFICATE without its other`);
    if (block === undefined) block = [];
    else {
      certificates.push(parse(block.join(""), certificates.length + 1));
      block = undefined;
    }
  }
  if (block !== undefined) throw refusal("has a line BEGIN CERTIFICATE without its other");
  if (certificates.length === 0) throw refusal("has no certificate");
  return certificates;
}

function parse(base64: string, number: number): X509Certificate {
  const der = Buffer.from(base64, "base64");
  if (base64 === "" || der.toString("base64") !== base64)
    throw refusal(`has something other than base64 in certificate ${number}`);
  let certificate: X509Certificate;
  try {
    certificate = new X509Certificate(der);
  } catch {
    throw refusal(`has a certificate, number ${number}, that cannot be parsed`);
  }
  // The parser stops where the certificate ends, and also accepts text.
  if (!certificate.raw.equals(der)) throw refusal(`has more than a certificate in block ${number}`);
  // One that vouches for itself is an authority for itself, whatever it says of its purpose.
  if (!certificate.ca && !certificate.checkIssued(certificate))
    throw refusal(
      `has the certificate of ${nameOf(certificate)}, which is a server's own, not an authority's: take that of the authority which signed it`,
    );
  return certificate;
}

const toPem = ({ raw }: X509Certificate): string => {
  const lines = raw.toString("base64").match(/.{1,64}/g) ?? [];
  return ["-----BEGIN CERTIFICATE-----", ...lines, "-----END CERTIFICATE-----", ""].join("\n");
};

/** Whoever made the certificate chose its name: one line, no control characters, and not endless. */
const nameOf = ({ subject }: X509Certificate): string =>
  `"${(subject ?? "without a name")
    .replaceAll(/[\p{C}\p{Zl}\p{Zp}]+/gu, " ")
    .replaceAll('"', "'")
    .slice(0, 200)}"`;

const refusal = (what: string): Refusal =>
  new Refusal(
    "certificate",
    `${what}. Expected certificates of authorities in PEM (BEGIN CERTIFICATE … END CERTIFICATE)`,
  );
