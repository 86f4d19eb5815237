// What every test program ends with, unless it has its own: a parser for one header, checks that do
// nothing, and a deparser. A program defines `header h_t`, `headers_t`, `metadata_t` and ingress `I`.
#ifndef OWN_PARSER
parser P(packet_in packet, out headers_t hdr, inout metadata_t meta, inout standard_metadata_t sm) {
    state start {
        packet.extract(hdr.h);
        transition accept;
    }
}
#endif

#ifndef OWN_CHECKSUMS
control V(inout headers_t hdr, inout metadata_t meta) { apply {} }
control C(inout headers_t hdr, inout metadata_t meta) { apply {} }
#endif

#ifndef OWN_EGRESS
control E(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t sm) { apply {} }
#endif

control D(packet_out packet, in headers_t hdr) {
    apply { packet.emit(hdr); }
}

V1Switch(P(), V(), I(), E(), C(), D()) main;
