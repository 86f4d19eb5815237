// One flow filter and counting table, for one kind of flow key: registers, and the actions that
// encode a packet, read a chunk and clear a chunk. Included by flowradar.p4 inside its control, once
// for IPv4 and once for IPv6, with the FR_ macros set to that table's sizes.
//
// All registers of a packet are used in one action: bmv2 locks the registers of an action for as long
// as it runs, so that a packet is counted in filter, cells and totals as a whole or not yet.

// Registers. Each has both banks, one after the other.

#define FR_CELL_REGISTERS(i) \
    FR_ADDRESS_REGISTERS(i) \
    register<bit<64>>(2 * FR_CELL_BANK_ROWS) FR_NAME(flow_count_and_ports_##i); \
    register<bit<32>>(2 * FR_CELL_BANK_ROWS) FR_NAME(packet_count_##i); \
    FR_BYTE_REGISTER(i)

#if FR_COUNT_BYTES
#define FR_BYTE_REGISTER(i) register<bit<64>>(2 * FR_CELL_BANK_ROWS) FR_NAME(byte_count_##i);
#else
#define FR_BYTE_REGISTER(i)
#endif

#if FR_ADDRESS_WORDS == 1
#define FR_ADDRESS_REGISTERS(i) register<bit<64>>(2 * FR_CELL_BANK_ROWS) FR_NAME(addresses_##i);
#else
#define FR_ADDRESS_REGISTERS(i) \
    register<bit<64>>(2 * FR_CELL_BANK_ROWS) FR_NAME(source_high_##i); \
    register<bit<64>>(2 * FR_CELL_BANK_ROWS) FR_NAME(source_low_##i); \
    register<bit<64>>(2 * FR_CELL_BANK_ROWS) FR_NAME(destination_high_##i); \
    register<bit<64>>(2 * FR_CELL_BANK_ROWS) FR_NAME(destination_low_##i);
#endif

#define FR_FILTER_REGISTER(j) register<bit<64>>(2 * FR_FILTER_BANK_ROWS) FR_NAME(filter_##j);

FLOWRADAR_REPEAT(FR_HASHES, FR_CELL_REGISTERS)
FLOWRADAR_REPEAT(FR_FILTER_ARRAYS, FR_FILTER_REGISTER)

register<bit<64>>(2) FR_NAME(total_packets);
register<bit<64>>(2) FR_NAME(total_bytes);
register<bit<64>>(2) FR_NAME(total_new_flows);

// Encoding (docs/flowset-format.md, "From a packet to bits and cells"; hash family mix64 of
// docs/hash-families.md).

// In a blocked filter all words of a flow have one index.
#if FR_FILTER_BLOCKED
#define FR_FILTER_INDEX(j) filter_row
#define FR_FILTER_DECLARE(j) bit<64> filter_word_##j; bit<64> filter_mask_##j;
#define FR_FILTER_PLACE(j) filter_mask_##j = 64w1 << FLOWRADAR_BLOCK_BIT_##j;
#else
#define FR_FILTER_INDEX(j) filter_index_##j
#define FR_FILTER_DECLARE(j) \
    bit<64> filter_word_##j; \
    bit<64> filter_mask_##j; \
    bit<32> filter_index_##j;
#define FR_FILTER_PLACE(j) \
    filter_bit = FLOWRADAR_REDUCE(FLOWRADAR_FILTER_LANE_##j, FR_FILTER_SIZE); \
    filter_index_##j = filter_row + (filter_bit >> 6); \
    filter_mask_##j = 64w1 << filter_bit[5:0];
#endif

#define FR_FILTER_TEST(j) \
    FR_NAME(filter_##j).read(filter_word_##j, FR_FILTER_INDEX(j)); \
    missing = missing | (~filter_word_##j & filter_mask_##j);

#define FR_FILTER_SET(j) \
    FR_NAME(filter_##j).write(FR_FILTER_INDEX(j), filter_word_##j | filter_mask_##j);

#define FR_PAIR_DECLARE(p) bit<64> filter_pair_##p;
#define FR_PAIR(p) \
    filter_pair_##p = filter_sequence; \
    FLOWRADAR_MIX(filter_pair_##p) \
    filter_sequence = filter_sequence + FLOWRADAR_GOLDEN;

#if FR_WINDOW_CELLS
#define FR_CELL_INDEX(i) (cell_first + FLOWRADAR_REDUCE(FLOWRADAR_TABLE_LANE_##i, FR_WINDOW_CELLS))
#else
#define FR_CELL_INDEX(i) (cell_first + FLOWRADAR_REDUCE(FLOWRADAR_TABLE_LANE_##i, FR_SUBTABLE_CELLS))
#endif

#define FR_CELL_DECLARE(i) bit<32> cell_##i; bit<24> flow_count_##i; bit<32> packet_count_##i;

#define FR_CELL_PLACE(i) cell_##i = FR_CELL_INDEX(i);

#if FR_ADDRESS_WORDS == 1
#define FR_CELL_INSERT_ADDRESSES(i) \
    FR_CELL_XOR(addresses_##i, i, packet.address_0)
#else
#define FR_CELL_INSERT_ADDRESSES(i) \
    FR_CELL_XOR(source_high_##i, i, packet.address_0) \
    FR_CELL_XOR(source_low_##i, i, packet.address_1) \
    FR_CELL_XOR(destination_high_##i, i, packet.address_2) \
    FR_CELL_XOR(destination_low_##i, i, packet.address_3)
#endif

#define FR_CELL_XOR(array, i, value) \
    FR_NAME(array).read(word, cell_##i); \
    FR_NAME(array).write(cell_##i, word ^ value);

#define FR_CELL_INSERT(i) \
    FR_CELL_INSERT_ADDRESSES(i) \
    FR_NAME(flow_count_and_ports_##i).read(word, cell_##i); \
    flow_count_##i = word[63:40] |+| 24w1; \
    FR_NAME(flow_count_and_ports_##i).write(cell_##i, flow_count_##i ++ (word[39:0] ^ ports));

#define FR_CELL_COUNT(i) \
    FR_NAME(packet_count_##i).read(packet_count_##i, cell_##i); \
    packet_count_##i = packet_count_##i |+| 32w1; \
    FR_NAME(packet_count_##i).write(cell_##i, packet_count_##i); \
    FR_CELL_COUNT_BYTES(i)

#if FR_COUNT_BYTES
#define FR_CELL_COUNT_BYTES(i) \
    FR_NAME(byte_count_##i).read(word, cell_##i); \
    FR_NAME(byte_count_##i).write(cell_##i, word + (bit<64>)packet.ip_bytes);
#else
#define FR_CELL_COUNT_BYTES(i)
#endif

action FR_NAME(encode)() {
    bit<40> ports = packet.source_port ++ packet.destination_port ++ packet.protocol;
    bit<64> word;

    bit<32> bank;
    FLOWRADAR_COUNTING_BANK(bank)

    // The key's hash.
    bit<64> low;
    bit<64> high;
    seed_mixed.read(high, bank);
    high = high ^ FLOWRADAR_SEED_MIXED ^ packet.address_0;
    FLOWRADAR_MIX(high)
#if FR_ADDRESS_WORDS == 4
    high = (high + FLOWRADAR_GOLDEN) ^ packet.address_1;
    FLOWRADAR_MIX(high)
    high = (high + FLOWRADAR_GOLDEN) ^ packet.address_2;
    FLOWRADAR_MIX(high)
    high = (high + FLOWRADAR_GOLDEN) ^ packet.address_3;
    FLOWRADAR_MIX(high)
#endif
    high = (high + FLOWRADAR_GOLDEN) ^ (bit<64>)ports;
    FLOWRADAR_MIX(high)
    high = high + FLOWRADAR_GOLDEN;
    low = high;
    FLOWRADAR_MIX(low)
    high = high ^ FLOWRADAR_GOLDEN;
    FLOWRADAR_MIX(high)

    // The flow filter: is one of the flow's bits missing?
    bit<64> filter_base = (low ^ ((high << 32) | (high >> 32))) * FLOWRADAR_GOLDEN;
    bit<64> filter_sequence = filter_base;
    FLOWRADAR_REPEAT(FR_FILTER_PAIRS, FR_PAIR_DECLARE)
    FLOWRADAR_REPEAT(FR_FILTER_PAIRS, FR_PAIR)
    bit<32> filter_row = bank * FR_FILTER_BANK_ROWS;
#if FR_FILTER_BLOCKED
    filter_row = filter_row + FLOWRADAR_REDUCE(FLOWRADAR_FILTER_LANE_0, FR_FILTER_SIZE);
#else
    bit<32> filter_bit;
#endif
    bit<64> missing = 0;
    FLOWRADAR_REPEAT(FR_FILTER_ARRAYS, FR_FILTER_DECLARE)
    FLOWRADAR_REPEAT(FR_FILTER_ARRAYS, FR_FILTER_PLACE)
    FLOWRADAR_REPEAT(FR_FILTER_ARRAYS, FR_FILTER_TEST)

    // The flow's cells, one in each subtable.
#if FR_HASHES > 4
    bit<64> further = low ^ FLOWRADAR_GOLDEN;
    FLOWRADAR_MIX(further)
#endif
    bit<32> cell_first = bank * FR_CELL_BANK_ROWS;
#if FR_WINDOW_CELLS
    bit<64> window = high ^ FLOWRADAR_GOLDEN;
    FLOWRADAR_MIX(window)
    cell_first = cell_first
        + FLOWRADAR_REDUCE(FLOWRADAR_TABLE_LANE_7, (FR_SUBTABLE_CELLS - FR_WINDOW_CELLS + 1));
#endif
    FLOWRADAR_REPEAT(FR_HASHES, FR_CELL_DECLARE)
    FLOWRADAR_REPEAT(FR_HASHES, FR_CELL_PLACE)

    if (missing != 0) {
        FLOWRADAR_REPEAT(FR_FILTER_ARRAYS, FR_FILTER_SET)
        FLOWRADAR_REPEAT(FR_HASHES, FR_CELL_INSERT)
        FR_NAME(total_new_flows).read(word, bank);
        FR_NAME(total_new_flows).write(bank, word + 1);
    }
    FLOWRADAR_REPEAT(FR_HASHES, FR_CELL_COUNT)
    FR_NAME(total_packets).read(word, bank);
    FR_NAME(total_packets).write(bank, word + 1);
    FR_NAME(total_bytes).read(word, bank);
    FR_NAME(total_bytes).write(bank, word + (bit<64>)packet.ip_bytes);
}

// Reading and clearing a chunk of rows.

#if FR_ADDRESS_WORDS == 1
#define FR_CELL_READ_ADDRESSES(r, i) \
    FR_NAME(addresses_##i).read(headers.FR_NAME(cells)[r].addresses_##i, row_##r);
#define FR_CELL_CLEAR_ADDRESSES(r, i) \
    FR_NAME(addresses_##i).write(row_##r, 0);
#else
#define FR_CELL_READ_ADDRESSES(r, i) \
    FR_NAME(source_high_##i).read(headers.FR_NAME(cells)[r].source_high_##i, row_##r); \
    FR_NAME(source_low_##i).read(headers.FR_NAME(cells)[r].source_low_##i, row_##r); \
    FR_NAME(destination_high_##i).read(headers.FR_NAME(cells)[r].destination_high_##i, row_##r); \
    FR_NAME(destination_low_##i).read(headers.FR_NAME(cells)[r].destination_low_##i, row_##r);
#define FR_CELL_CLEAR_ADDRESSES(r, i) \
    FR_NAME(source_high_##i).write(row_##r, 0); \
    FR_NAME(source_low_##i).write(row_##r, 0); \
    FR_NAME(destination_high_##i).write(row_##r, 0); \
    FR_NAME(destination_low_##i).write(row_##r, 0);
#endif

#if FR_COUNT_BYTES
#define FR_CELL_READ_BYTES(r, i) \
    FR_NAME(byte_count_##i).read(headers.FR_NAME(cells)[r].byte_count_##i, row_##r);
#define FR_CELL_CLEAR_BYTES(r, i) FR_NAME(byte_count_##i).write(row_##r, 0);
#else
#define FR_CELL_READ_BYTES(r, i)
#define FR_CELL_CLEAR_BYTES(r, i)
#endif

#define FR_CELL_READ(r, i) \
    FR_CELL_READ_ADDRESSES(r, i) \
    FR_NAME(flow_count_and_ports_##i).read( \
        headers.FR_NAME(cells)[r].flow_count_and_ports_##i, row_##r); \
    FR_NAME(packet_count_##i).read(headers.FR_NAME(cells)[r].packet_count_##i, row_##r); \
    FR_CELL_READ_BYTES(r, i)

#define FR_CELL_CLEAR(r, i) \
    FR_CELL_CLEAR_ADDRESSES(r, i) \
    FR_NAME(flow_count_and_ports_##i).write(row_##r, 0); \
    FR_NAME(packet_count_##i).write(row_##r, 0); \
    FR_CELL_CLEAR_BYTES(r, i)

#define FR_CELL_ROW_READ(r) \
    bit<32> row_##r = first_row + r; \
    FLOWRADAR_REPEAT_IN(FR_HASHES, FR_CELL_READ, r)
#define FR_CELL_ROW_CLEAR(r) \
    bit<32> row_##r = first_row + r; \
    FLOWRADAR_REPEAT_IN(FR_HASHES, FR_CELL_CLEAR, r)

#define FR_FILTER_READ(r, j) \
    FR_NAME(filter_##j).read(headers.FR_NAME(filter)[r].word_##j, row_##r);
#define FR_FILTER_CLEAR(r, j) FR_NAME(filter_##j).write(row_##r, 0);
#define FR_FILTER_ROW_READ(r) \
    bit<32> row_##r = first_row + r; \
    FLOWRADAR_REPEAT_IN(FR_FILTER_ARRAYS, FR_FILTER_READ, r)
#define FR_FILTER_ROW_CLEAR(r) \
    bit<32> row_##r = first_row + r; \
    FLOWRADAR_REPEAT_IN(FR_FILTER_ARRAYS, FR_FILTER_CLEAR, r)

action FR_NAME(read_cells)() {
    bit<32> first_row = (bit<32>)headers.drain.bank * FR_CELL_BANK_ROWS
        + headers.drain.chunk * FR_CELL_CHUNK_ROWS;
    FLOWRADAR_REPEAT(FR_CELL_CHUNK_ROWS, FR_CELL_ROW_READ)
}

action FR_NAME(read_filter)() {
    bit<32> first_row = (bit<32>)headers.drain.bank * FR_FILTER_BANK_ROWS
        + headers.drain.chunk * FR_FILTER_CHUNK_ROWS;
    FLOWRADAR_REPEAT(FR_FILTER_CHUNK_ROWS, FR_FILTER_ROW_READ)
}

action FR_NAME(clear_cells)() {
    bit<32> first_row = (bit<32>)headers.drain.bank * FR_CELL_BANK_ROWS
        + headers.drain.chunk * FR_CELL_CHUNK_ROWS;
    FLOWRADAR_REPEAT(FR_CELL_CHUNK_ROWS, FR_CELL_ROW_CLEAR)
}

action FR_NAME(clear_filter)() {
    bit<32> first_row = (bit<32>)headers.drain.bank * FR_FILTER_BANK_ROWS
        + headers.drain.chunk * FR_FILTER_CHUNK_ROWS;
    FLOWRADAR_REPEAT(FR_FILTER_CHUNK_ROWS, FR_FILTER_ROW_CLEAR)
}
