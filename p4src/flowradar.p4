// FlowRadar for v1model: the encoder as a control for a program of your own.
//
// What to do (docs/p4.md has it step by step):
//   1. Generate flowradar_config.p4 for your number of flows: `flowradar p4 config`.
//   2. Put flowradar_headers_t into your headers, flowradar_packet_t into your metadata.
//   3. Parse what follows EtherType FLOWRADAR_ETHER_TYPE in frames from the CPU port with
//      FlowRadarDrainParser; fill in flowradar_packet_t for all other frames (flowradar_parser.p4 does
//      it, by the rules that flowradar_core::packet has too).
//   4. Apply FlowRadar() once to every packet. If headers.drain is valid afterwards, send the packet to
//      the CPU port: it is an answer. Emit the headers behind Ethernet.
//
// The exchange with the controller is specified in docs/p4-drain-format.md, what is computed in
// docs/flowset-format.md and docs/hash-families.md (family mix64).

#ifndef FLOWRADAR_P4
#define FLOWRADAR_P4

#include "flowradar_config.p4"
#include "flowradar_repeat.p4"

#define FLOWRADAR_ETHER_TYPE 16w0x88b5

#define FLOWRADAR_MAGIC 16w0x4652
#define FLOWRADAR_VERSION 8w1

#define FLOWRADAR_QUERY 8w1
#define FLOWRADAR_SWITCH 8w2
#define FLOWRADAR_READ 8w3
#define FLOWRADAR_CLEAR 8w4
#define FLOWRADAR_RELEASE 8w5
#define FLOWRADAR_REPLY 8w128

#define FLOWRADAR_SECTION_FILTER 8w1
#define FLOWRADAR_SECTION_CELLS 8w2

#define FLOWRADAR_DONE 8w0
#define FLOWRADAR_NO_SUCH_OPERATION 8w1
#define FLOWRADAR_OTHER_FINGERPRINT 8w2
#define FLOWRADAR_OTHER_EPOCH 8w3
#define FLOWRADAR_BANK_ACTIVE 8w4
#define FLOWRADAR_BANK_NOT_CLEAN 8w5
#define FLOWRADAR_BANK_STATE 8w6
#define FLOWRADAR_NO_SUCH_PLACE 8w7
#define FLOWRADAR_EPOCH_NOT_NEWER 8w8
#define FLOWRADAR_EPOCH_PARITY 8w9
#define FLOWRADAR_NO_ROOM 8w10

#define FLOWRADAR_CLEAN 8w0
#define FLOWRADAR_SEALED 8w1
#define FLOWRADAR_CLEARING 8w2

#define FLOWRADAR_FEATURES (8w0 | FLOWRADAR_V4 | FLOWRADAR_V6 << 1 | FLOWRADAR_STAMP_EPOCH << 2)

// What a packet is to FlowRadar: the kinds of flow key by their IP version, and what has no key.
#define FLOWRADAR_KIND_NONE 8w0
#define FLOWRADAR_KIND_V4 8w4
#define FLOWRADAR_KIND_V6 8w6
#define FLOWRADAR_KIND_NOT_IP 8w1
#define FLOWRADAR_KIND_MALFORMED 8w2

// The packet that is to be counted. Left at zero, it is not counted at all.
struct flowradar_packet_t {
    bit<8>  kind;              // FLOWRADAR_KIND_...
    bit<64> address_0;         // IPv4: source ++ destination; IPv6: source, high half
    bit<64> address_1;         // IPv6: source, low half
    bit<64> address_2;         // IPv6: destination, high half
    bit<64> address_3;         // IPv6: destination, low half
    bit<16> source_port;
    bit<16> destination_port;
    bit<8>  protocol;
    bit<32> ip_bytes;          // from the IP header on
    bit<1>  ports_cut_off;     // the packet ends before its ports
#if FLOWRADAR_STAMP_EPOCH
    bit<1>  is_stamped;        // a switch before this one has stamped the packet
    bit<1>  stamp;             // with this; set by FlowRadar() if no switch before has
#endif
}

header flowradar_drain_t {
    bit<16> magic;
    bit<8>  version;
    bit<8>  operation;
    bit<32> tag;
    bit<64> fingerprint;
    bit<64> epoch;
    bit<64> seed;
    bit<8>  bank;
    bit<8>  table_kind;
    bit<8>  section;
    bit<8>  status;
    bit<32> chunk;
}

header flowradar_state_t {
    bit<8>  active_bank;
    bit<8>  bank_state_0;
    bit<8>  bank_state_1;
    bit<8>  features;
    bit<32> reserved;
}

header flowradar_bank_t {
    bit<64> epoch;
    bit<64> seed;
    bit<64> v4_packets;
    bit<64> v4_bytes;
    bit<64> v4_new_flows;
    bit<64> v6_packets;
    bit<64> v6_bytes;
    bit<64> v6_new_flows;
    bit<64> not_ip;
    bit<64> malformed;
    bit<64> ports_cut_off;
}

#define FLOWRADAR_FILTER_FIELD(j) bit<64> word_##j;
#define FLOWRADAR_CELL_FIELDS_V4(i) \
    bit<64> addresses_##i; \
    bit<64> flow_count_and_ports_##i; \
    bit<32> packet_count_##i; \
    FLOWRADAR_CELL_BYTES_V4(i)
#define FLOWRADAR_CELL_FIELDS_V6(i) \
    bit<64> source_high_##i; \
    bit<64> source_low_##i; \
    bit<64> destination_high_##i; \
    bit<64> destination_low_##i; \
    bit<64> flow_count_and_ports_##i; \
    bit<32> packet_count_##i; \
    FLOWRADAR_CELL_BYTES_V6(i)

#if FLOWRADAR_V4
#if FLOWRADAR_V4_COUNT_BYTES
#define FLOWRADAR_CELL_BYTES_V4(i) bit<64> byte_count_##i;
#else
#define FLOWRADAR_CELL_BYTES_V4(i)
#endif
header flowradar_v4_filter_t {
    FLOWRADAR_REPEAT(FLOWRADAR_V4_FILTER_ARRAYS, FLOWRADAR_FILTER_FIELD)
}
header flowradar_v4_cells_t {
    FLOWRADAR_REPEAT(FLOWRADAR_V4_HASHES, FLOWRADAR_CELL_FIELDS_V4)
}
#endif

#if FLOWRADAR_V6
#if FLOWRADAR_V6_COUNT_BYTES
#define FLOWRADAR_CELL_BYTES_V6(i) bit<64> byte_count_##i;
#else
#define FLOWRADAR_CELL_BYTES_V6(i)
#endif
header flowradar_v6_filter_t {
    FLOWRADAR_REPEAT(FLOWRADAR_V6_FILTER_ARRAYS, FLOWRADAR_FILTER_FIELD)
}
header flowradar_v6_cells_t {
    FLOWRADAR_REPEAT(FLOWRADAR_V6_HASHES, FLOWRADAR_CELL_FIELDS_V6)
}
#endif

struct flowradar_headers_t {
    flowradar_drain_t drain;
    flowradar_state_t state;
    flowradar_bank_t bank_0;
    flowradar_bank_t bank_1;
#if FLOWRADAR_V4
    flowradar_v4_filter_t[FLOWRADAR_V4_FILTER_CHUNK_ROWS] v4_filter;
    flowradar_v4_cells_t[FLOWRADAR_V4_CELL_CHUNK_ROWS] v4_cells;
#endif
#if FLOWRADAR_V6
    flowradar_v6_filter_t[FLOWRADAR_V6_FILTER_CHUNK_ROWS] v6_filter;
    flowradar_v6_cells_t[FLOWRADAR_V6_CELL_CHUNK_ROWS] v6_cells;
#endif
}

// Hash family mix64.

#define FLOWRADAR_GOLDEN 64w0x9E3779B97F4A7C15

#define FLOWRADAR_MIX(word) \
    word = (word ^ (word >> 30)) * 64w0xBF58476D1CE4E5B9; \
    word = (word ^ (word >> 27)) * 64w0x94D049BB133111EB; \
    word = word ^ (word >> 31);

// Lanes are below 2^32 and have 64 bits, for this product.
#define FLOWRADAR_REDUCE(lane, size) ((bit<32>)((lane * size) >> 32))

#define FLOWRADAR_TABLE_LANE_0 (low & 0xffffffff)
#define FLOWRADAR_TABLE_LANE_1 (low >> 32)
#define FLOWRADAR_TABLE_LANE_2 (high & 0xffffffff)
#define FLOWRADAR_TABLE_LANE_3 (high >> 32)
#define FLOWRADAR_TABLE_LANE_4 (further & 0xffffffff)
#define FLOWRADAR_TABLE_LANE_5 (further >> 32)
#define FLOWRADAR_TABLE_LANE_7 (window >> 32)

#define FLOWRADAR_FILTER_LANE_0 (filter_base >> 32)
#define FLOWRADAR_FILTER_LANE_1 (filter_pair_0 & 0xffffffff)
#define FLOWRADAR_FILTER_LANE_2 (filter_pair_0 >> 32)
#define FLOWRADAR_FILTER_LANE_3 (filter_pair_1 & 0xffffffff)
#define FLOWRADAR_FILTER_LANE_4 (filter_pair_1 >> 32)
#define FLOWRADAR_FILTER_LANE_5 (filter_pair_2 & 0xffffffff)
#define FLOWRADAR_FILTER_LANE_6 (filter_pair_2 >> 32)
#define FLOWRADAR_FILTER_LANE_7 (filter_pair_3 & 0xffffffff)
#define FLOWRADAR_FILTER_LANE_8 (filter_pair_3 >> 32)
#define FLOWRADAR_FILTER_LANE_9 (filter_pair_4 & 0xffffffff)
#define FLOWRADAR_FILTER_LANE_10 (filter_pair_4 >> 32)
#define FLOWRADAR_FILTER_LANE_11 (filter_pair_5 & 0xffffffff)
#define FLOWRADAR_FILTER_LANE_12 (filter_pair_5 >> 32)
#define FLOWRADAR_FILTER_LANE_13 (filter_pair_6 & 0xffffffff)
#define FLOWRADAR_FILTER_LANE_14 (filter_pair_6 >> 32)
#define FLOWRADAR_FILTER_LANE_15 (filter_pair_7 & 0xffffffff)
#define FLOWRADAR_FILTER_LANE_16 (filter_pair_7 >> 32)
#define FLOWRADAR_FILTER_LANE_17 (filter_pair_8 & 0xffffffff)
#define FLOWRADAR_FILTER_LANE_18 (filter_pair_8 >> 32)
#define FLOWRADAR_FILTER_LANE_19 (filter_pair_9 & 0xffffffff)
#define FLOWRADAR_FILTER_LANE_20 (filter_pair_9 >> 32)
#define FLOWRADAR_FILTER_LANE_21 (filter_pair_10 & 0xffffffff)
#define FLOWRADAR_FILTER_LANE_22 (filter_pair_10 >> 32)
#define FLOWRADAR_FILTER_LANE_23 (filter_pair_11 & 0xffffffff)

// The bit of a flow in each of the eight words of its block.
#define FLOWRADAR_BLOCK_BIT_0 filter_pair_0[31:26]
#define FLOWRADAR_BLOCK_BIT_1 filter_pair_0[25:20]
#define FLOWRADAR_BLOCK_BIT_2 filter_pair_0[19:14]
#define FLOWRADAR_BLOCK_BIT_3 filter_pair_0[13:8]
#define FLOWRADAR_BLOCK_BIT_4 filter_pair_0[63:58]
#define FLOWRADAR_BLOCK_BIT_5 filter_pair_0[57:52]
#define FLOWRADAR_BLOCK_BIT_6 filter_pair_0[51:46]
#define FLOWRADAR_BLOCK_BIT_7 filter_pair_0[45:40]

// Which bank counts this packet: the active one, or where packets are stamped, the one of the stamp.
#if FLOWRADAR_STAMP_EPOCH
#define FLOWRADAR_COUNTING_BANK(bank) \
    bit<8> active; \
    active_bank.read(active, 0); \
    if (packet.is_stamped == 0) { \
        packet.stamp = active[0:0]; \
    } \
    bank = (bit<32>)packet.stamp;
#else
#define FLOWRADAR_COUNTING_BANK(bank) \
    bit<8> active; \
    active_bank.read(active, 0); \
    bank = (bit<32>)active;
#endif

// A request of the controller. One that reads brings room for the rows: bmv2 lets a packet grow by 512
// bytes at most.
parser FlowRadarDrainParser(packet_in packet, out flowradar_headers_t headers) {
    state start {
        transition select(packet.lookahead<bit<24>>()) {
            FLOWRADAR_MAGIC ++ FLOWRADAR_VERSION: drain_header;
            default: accept;
        }
    }

    state drain_header {
        packet.extract(headers.drain);
        transition select(
            headers.drain.operation, headers.drain.table_kind, headers.drain.section
        ) {
#if FLOWRADAR_V4
            (FLOWRADAR_READ, FLOWRADAR_KIND_V4, FLOWRADAR_SECTION_FILTER): v4_filter;
            (FLOWRADAR_READ, FLOWRADAR_KIND_V4, FLOWRADAR_SECTION_CELLS): v4_cells;
#endif
#if FLOWRADAR_V6
            (FLOWRADAR_READ, FLOWRADAR_KIND_V6, FLOWRADAR_SECTION_FILTER): v6_filter;
            (FLOWRADAR_READ, FLOWRADAR_KIND_V6, FLOWRADAR_SECTION_CELLS): v6_cells;
#endif
            default: accept;
        }
    }

#if FLOWRADAR_V4
#define FLOWRADAR_EXTRACT_V4_FILTER(r) packet.extract(headers.v4_filter.next);
#define FLOWRADAR_EXTRACT_V4_CELLS(r) packet.extract(headers.v4_cells.next);
    state v4_filter {
        FLOWRADAR_REPEAT(FLOWRADAR_V4_FILTER_CHUNK_ROWS, FLOWRADAR_EXTRACT_V4_FILTER)
        transition accept;
    }

    state v4_cells {
        FLOWRADAR_REPEAT(FLOWRADAR_V4_CELL_CHUNK_ROWS, FLOWRADAR_EXTRACT_V4_CELLS)
        transition accept;
    }
#endif

#if FLOWRADAR_V6
#define FLOWRADAR_EXTRACT_V6_FILTER(r) packet.extract(headers.v6_filter.next);
#define FLOWRADAR_EXTRACT_V6_CELLS(r) packet.extract(headers.v6_cells.next);
    state v6_filter {
        FLOWRADAR_REPEAT(FLOWRADAR_V6_FILTER_CHUNK_ROWS, FLOWRADAR_EXTRACT_V6_FILTER)
        transition accept;
    }

    state v6_cells {
        FLOWRADAR_REPEAT(FLOWRADAR_V6_CELL_CHUNK_ROWS, FLOWRADAR_EXTRACT_V6_CELLS)
        transition accept;
    }
#endif
}

control FlowRadar(inout flowradar_headers_t headers, inout flowradar_packet_t packet) {
    // Registers that are zero after loading must mean the compiled defaults: seeds are kept XORed
    // with theirs.
    register<bit<8>>(1) active_bank;
    register<bit<8>>(2) bank_state;
    register<bit<64>>(2) bank_epoch;
    register<bit<64>>(2) seed;
    register<bit<64>>(2) seed_mixed;
    register<bit<64>>(2) not_ip;
    register<bit<64>>(2) malformed;
    register<bit<64>>(2) ports_cut_off;

#if FLOWRADAR_V4
#define FR_NAME(name) v4_##name
#define FR_ADDRESS_WORDS 1
#define FR_HASHES FLOWRADAR_V4_HASHES
#define FR_SUBTABLE_CELLS FLOWRADAR_V4_SUBTABLE_CELLS
#define FR_WINDOW_CELLS FLOWRADAR_V4_WINDOW_CELLS
#define FR_COUNT_BYTES FLOWRADAR_V4_COUNT_BYTES
#define FR_FILTER_BLOCKED FLOWRADAR_V4_FILTER_BLOCKED
#define FR_FILTER_ARRAYS FLOWRADAR_V4_FILTER_ARRAYS
#define FR_FILTER_SIZE FLOWRADAR_V4_FILTER_SIZE
#define FR_FILTER_PAIRS FLOWRADAR_V4_FILTER_PAIRS
#define FR_CELL_CHUNK_ROWS FLOWRADAR_V4_CELL_CHUNK_ROWS
#define FR_CELL_BANK_ROWS FLOWRADAR_V4_CELL_BANK_ROWS
#define FR_FILTER_CHUNK_ROWS FLOWRADAR_V4_FILTER_CHUNK_ROWS
#define FR_FILTER_BANK_ROWS FLOWRADAR_V4_FILTER_BANK_ROWS
#include "flowradar_table.p4"
#include "flowradar_table_end.p4"
#endif

#if FLOWRADAR_V6
#define FR_NAME(name) v6_##name
#define FR_ADDRESS_WORDS 4
#define FR_HASHES FLOWRADAR_V6_HASHES
#define FR_SUBTABLE_CELLS FLOWRADAR_V6_SUBTABLE_CELLS
#define FR_WINDOW_CELLS FLOWRADAR_V6_WINDOW_CELLS
#define FR_COUNT_BYTES FLOWRADAR_V6_COUNT_BYTES
#define FR_FILTER_BLOCKED FLOWRADAR_V6_FILTER_BLOCKED
#define FR_FILTER_ARRAYS FLOWRADAR_V6_FILTER_ARRAYS
#define FR_FILTER_SIZE FLOWRADAR_V6_FILTER_SIZE
#define FR_FILTER_PAIRS FLOWRADAR_V6_FILTER_PAIRS
#define FR_CELL_CHUNK_ROWS FLOWRADAR_V6_CELL_CHUNK_ROWS
#define FR_CELL_BANK_ROWS FLOWRADAR_V6_CELL_BANK_ROWS
#define FR_FILTER_CHUNK_ROWS FLOWRADAR_V6_FILTER_CHUNK_ROWS
#define FR_FILTER_BANK_ROWS FLOWRADAR_V6_FILTER_BANK_ROWS
#include "flowradar_table.p4"
#include "flowradar_table_end.p4"
#endif

    // Packets without a key, and packets whose key lacks its ports.

    action count_not_ip() {
        bit<64> count;
        bit<32> bank;
        FLOWRADAR_COUNTING_BANK(bank)
        not_ip.read(count, bank);
        not_ip.write(bank, count + 1);
    }

    action count_malformed() {
        bit<64> count;
        bit<32> bank;
        FLOWRADAR_COUNTING_BANK(bank)
        malformed.read(count, bank);
        malformed.write(bank, count + 1);
    }

    action count_ports_cut_off() {
        bit<64> count;
        bit<32> bank;
        FLOWRADAR_COUNTING_BANK(bank)
        ports_cut_off.read(count, bank);
        ports_cut_off.write(bank, count + 1);
    }

    // The exchange with the controller.

    bit<8> active_now;
    bit<64> active_epoch;
    bit<8> state_now;
    bit<64> epoch_now;

    action answer(bit<8> status) {
        headers.drain.status = status;
    }

    action look_up_bank() {
        bit<32> bank = (bit<32>)headers.drain.bank;
        active_bank.read(active_now, 0);
        bank_epoch.read(active_epoch, (bit<32>)active_now);
        bank_state.read(state_now, bank);
        bank_epoch.read(epoch_now, bank);
    }

#define FLOWRADAR_SET_SEED(bank) \
    bit<64> mixed = headers.drain.seed + FLOWRADAR_GOLDEN; \
    FLOWRADAR_MIX(mixed) \
    seed.write(bank, headers.drain.seed ^ FLOWRADAR_SEED); \
    seed_mixed.write(bank, mixed ^ FLOWRADAR_SEED_MIXED);

    action make_active() {
        bit<32> bank = (bit<32>)headers.drain.bank;
        bank_state.write((bit<32>)active_now, FLOWRADAR_SEALED);
        bank_epoch.write(bank, headers.drain.epoch);
#if !FLOWRADAR_STAMP_EPOCH
        FLOWRADAR_SET_SEED(bank)
#endif
        active_bank.write(0, headers.drain.bank);
    }

    action begin_clearing() {
        bank_state.write((bit<32>)headers.drain.bank, FLOWRADAR_CLEARING);
    }

    action make_clean() {
        bit<32> bank = (bit<32>)headers.drain.bank;
#if FLOWRADAR_V4
        v4_total_packets.write(bank, 0);
        v4_total_bytes.write(bank, 0);
        v4_total_new_flows.write(bank, 0);
#endif
#if FLOWRADAR_V6
        v6_total_packets.write(bank, 0);
        v6_total_bytes.write(bank, 0);
        v6_total_new_flows.write(bank, 0);
#endif
        not_ip.write(bank, 0);
        malformed.write(bank, 0);
        ports_cut_off.write(bank, 0);
#if FLOWRADAR_STAMP_EPOCH
        // Stamped packets of the bank's next epoch may come before this switch begins it.
        FLOWRADAR_SET_SEED(bank)
#endif
        bank_state.write(bank, FLOWRADAR_CLEAN);
    }

    // What every answer says about its bank; runs after the operation.
    action identify() {
        bit<32> bank = (bit<32>)headers.drain.bank;
        headers.drain.operation = headers.drain.operation | FLOWRADAR_REPLY;
        headers.drain.fingerprint = FLOWRADAR_FINGERPRINT;
        bank_epoch.read(headers.drain.epoch, bank);
        seed.read(headers.drain.seed, bank);
        headers.drain.seed = headers.drain.seed ^ FLOWRADAR_SEED;
    }

    action identify_no_bank() {
        headers.drain.operation = headers.drain.operation | FLOWRADAR_REPLY;
        headers.drain.fingerprint = FLOWRADAR_FINGERPRINT;
        headers.drain.epoch = 0;
        headers.drain.seed = 0;
    }

#if FLOWRADAR_V4
#define FLOWRADAR_V4_TOTALS(b) \
    v4_total_packets.read(headers.bank_##b.v4_packets, b); \
    v4_total_bytes.read(headers.bank_##b.v4_bytes, b); \
    v4_total_new_flows.read(headers.bank_##b.v4_new_flows, b);
#else
#define FLOWRADAR_V4_TOTALS(b) \
    headers.bank_##b.v4_packets = 0; \
    headers.bank_##b.v4_bytes = 0; \
    headers.bank_##b.v4_new_flows = 0;
#endif
#if FLOWRADAR_V6
#define FLOWRADAR_V6_TOTALS(b) \
    v6_total_packets.read(headers.bank_##b.v6_packets, b); \
    v6_total_bytes.read(headers.bank_##b.v6_bytes, b); \
    v6_total_new_flows.read(headers.bank_##b.v6_new_flows, b);
#else
#define FLOWRADAR_V6_TOTALS(b) \
    headers.bank_##b.v6_packets = 0; \
    headers.bank_##b.v6_bytes = 0; \
    headers.bank_##b.v6_new_flows = 0;
#endif
#define FLOWRADAR_BANK_STATE_OF(b) \
    headers.bank_##b.setValid(); \
    bank_epoch.read(headers.bank_##b.epoch, b); \
    seed.read(headers.bank_##b.seed, b); \
    headers.bank_##b.seed = headers.bank_##b.seed ^ FLOWRADAR_SEED; \
    FLOWRADAR_V4_TOTALS(b) \
    FLOWRADAR_V6_TOTALS(b) \
    not_ip.read(headers.bank_##b.not_ip, b); \
    malformed.read(headers.bank_##b.malformed, b); \
    ports_cut_off.read(headers.bank_##b.ports_cut_off, b);

    action add_state() {
        headers.state.setValid();
        active_bank.read(headers.state.active_bank, 0);
        bank_state.read(headers.state.bank_state_0, 0);
        bank_state.read(headers.state.bank_state_1, 1);
        headers.state.features = FLOWRADAR_FEATURES;
        headers.state.reserved = 0;
        FLOWRADAR_BANK_STATE_OF(0)
        FLOWRADAR_BANK_STATE_OF(1)
    }

    apply {
        if (headers.drain.isValid()) {
            answer(FLOWRADAR_DONE);
            if (headers.drain.operation == 0 || headers.drain.operation > FLOWRADAR_RELEASE) {
                answer(FLOWRADAR_NO_SUCH_OPERATION);
            } else if (headers.drain.operation != FLOWRADAR_QUERY
                && headers.drain.fingerprint != FLOWRADAR_FINGERPRINT) {
                answer(FLOWRADAR_OTHER_FINGERPRINT);
            } else if (headers.drain.bank > 1) {
                answer(FLOWRADAR_NO_SUCH_PLACE);
            } else {
                look_up_bank();
                if (headers.drain.operation == FLOWRADAR_SWITCH) {
                    if (headers.drain.bank == active_now) {
                        if (headers.drain.epoch != active_epoch) {
                            answer(FLOWRADAR_BANK_ACTIVE);
                        }
                    } else if (state_now != FLOWRADAR_CLEAN) {
                        answer(FLOWRADAR_BANK_NOT_CLEAN);
                    } else if (headers.drain.epoch <= active_epoch) {
                        answer(FLOWRADAR_EPOCH_NOT_NEWER);
#if FLOWRADAR_STAMP_EPOCH
                    } else if ((headers.drain.epoch[7:0] & 1) != headers.drain.bank) {
                        answer(FLOWRADAR_EPOCH_PARITY);
#endif
                    } else {
                        make_active();
                    }
                } else if (headers.drain.operation != FLOWRADAR_QUERY
                    && headers.drain.epoch != epoch_now) {
                    answer(FLOWRADAR_OTHER_EPOCH);
                } else if (headers.drain.operation == FLOWRADAR_READ) {
                    if (headers.drain.bank != active_now && state_now != FLOWRADAR_SEALED) {
                        answer(FLOWRADAR_BANK_STATE);
#if FLOWRADAR_V4
                    } else if (headers.drain.table_kind == FLOWRADAR_KIND_V4
                        && headers.drain.section == FLOWRADAR_SECTION_CELLS
                        && headers.drain.chunk < FLOWRADAR_V4_CELL_CHUNKS) {
                        if (headers.v4_cells[FLOWRADAR_V4_CELL_CHUNK_ROWS - 1].isValid()) {
                            v4_read_cells();
                        } else {
                            answer(FLOWRADAR_NO_ROOM);
                        }
                    } else if (headers.drain.table_kind == FLOWRADAR_KIND_V4
                        && headers.drain.section == FLOWRADAR_SECTION_FILTER
                        && headers.drain.chunk < FLOWRADAR_V4_FILTER_CHUNKS) {
                        if (headers.v4_filter[FLOWRADAR_V4_FILTER_CHUNK_ROWS - 1].isValid()) {
                            v4_read_filter();
                        } else {
                            answer(FLOWRADAR_NO_ROOM);
                        }
#endif
#if FLOWRADAR_V6
                    } else if (headers.drain.table_kind == FLOWRADAR_KIND_V6
                        && headers.drain.section == FLOWRADAR_SECTION_CELLS
                        && headers.drain.chunk < FLOWRADAR_V6_CELL_CHUNKS) {
                        if (headers.v6_cells[FLOWRADAR_V6_CELL_CHUNK_ROWS - 1].isValid()) {
                            v6_read_cells();
                        } else {
                            answer(FLOWRADAR_NO_ROOM);
                        }
                    } else if (headers.drain.table_kind == FLOWRADAR_KIND_V6
                        && headers.drain.section == FLOWRADAR_SECTION_FILTER
                        && headers.drain.chunk < FLOWRADAR_V6_FILTER_CHUNKS) {
                        if (headers.v6_filter[FLOWRADAR_V6_FILTER_CHUNK_ROWS - 1].isValid()) {
                            v6_read_filter();
                        } else {
                            answer(FLOWRADAR_NO_ROOM);
                        }
#endif
                    } else {
                        answer(FLOWRADAR_NO_SUCH_PLACE);
                    }
                } else if (headers.drain.operation == FLOWRADAR_CLEAR) {
                    if (headers.drain.bank == active_now) {
                        answer(FLOWRADAR_BANK_ACTIVE);
                    } else if (state_now == FLOWRADAR_CLEAN) {
                        answer(FLOWRADAR_BANK_STATE);
#if FLOWRADAR_V4
                    } else if (headers.drain.table_kind == FLOWRADAR_KIND_V4
                        && headers.drain.section == FLOWRADAR_SECTION_CELLS
                        && headers.drain.chunk < FLOWRADAR_V4_CELL_CHUNKS) {
                        begin_clearing();
                        v4_clear_cells();
                    } else if (headers.drain.table_kind == FLOWRADAR_KIND_V4
                        && headers.drain.section == FLOWRADAR_SECTION_FILTER
                        && headers.drain.chunk < FLOWRADAR_V4_FILTER_CHUNKS) {
                        begin_clearing();
                        v4_clear_filter();
#endif
#if FLOWRADAR_V6
                    } else if (headers.drain.table_kind == FLOWRADAR_KIND_V6
                        && headers.drain.section == FLOWRADAR_SECTION_CELLS
                        && headers.drain.chunk < FLOWRADAR_V6_CELL_CHUNKS) {
                        begin_clearing();
                        v6_clear_cells();
                    } else if (headers.drain.table_kind == FLOWRADAR_KIND_V6
                        && headers.drain.section == FLOWRADAR_SECTION_FILTER
                        && headers.drain.chunk < FLOWRADAR_V6_FILTER_CHUNKS) {
                        begin_clearing();
                        v6_clear_filter();
#endif
                    } else {
                        answer(FLOWRADAR_NO_SUCH_PLACE);
                    }
                } else if (headers.drain.operation == FLOWRADAR_RELEASE) {
                    if (headers.drain.bank == active_now) {
                        answer(FLOWRADAR_BANK_ACTIVE);
                    } else if (state_now == FLOWRADAR_CLEARING) {
                        make_clean();
                    } else if (state_now != FLOWRADAR_CLEAN) {
                        answer(FLOWRADAR_BANK_STATE);
                    }
                }
                if (headers.drain.status == FLOWRADAR_DONE
                    && headers.drain.operation != FLOWRADAR_READ
                    && headers.drain.operation != FLOWRADAR_CLEAR) {
                    add_state();
                }
            }
            if (headers.drain.bank > 1) {
                identify_no_bank();
            } else {
                identify();
            }
#if FLOWRADAR_V4
        } else if (packet.kind == FLOWRADAR_KIND_V4) {
            v4_encode();
            if (packet.ports_cut_off == 1) {
                count_ports_cut_off();
            }
#endif
#if FLOWRADAR_V6
        } else if (packet.kind == FLOWRADAR_KIND_V6) {
            v6_encode();
            if (packet.ports_cut_off == 1) {
                count_ports_cut_off();
            }
#endif
        } else if (packet.kind == FLOWRADAR_KIND_MALFORMED) {
            count_malformed();
        } else if (packet.kind != FLOWRADAR_KIND_NONE) {
            count_not_ip();
        }
    }
}

#endif
